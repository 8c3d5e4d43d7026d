//! Everything together: real broker, real bridge, real relays, started as users start them.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on shall stop")]

mod e2e;
