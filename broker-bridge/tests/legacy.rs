//! The routes of the old contract against a real broker: what relays see, byte for byte, and what none of them gets.
//!
//! | room | shows |
//! |---|---|
//! | `routes` | every status, text and header |
//! | `hostile` | bodies that no relay sends |
//! | `commands` | lists, claims, results |
//! | `output` | results of every size |
//! | `slow` | bodies that do not end |
//! | `foreign` | what others' keys do: nothing |
//! | `grants` | what nobody may author: not to be had |
//! | `races` | one winner, whatever else happens |
//! | `held` | polls that wait |
//! | `reports` | what relays say of themselves, pushes, credentials |

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a broken bridge ends the test")]

#[path = "fronts/bench.rs"]
#[expect(dead_code, reason = "consoles are for the tests of feeds")]
mod bench;

#[path = "legacy/commands.rs"]
mod commands;
#[path = "legacy/foreign.rs"]
mod foreign;
#[path = "legacy/grants.rs"]
mod grants;
#[path = "legacy/held.rs"]
mod held;
#[path = "legacy/hostile.rs"]
mod hostile;
#[path = "legacy/output.rs"]
mod output;
#[path = "legacy/races.rs"]
mod races;
#[path = "legacy/reports.rs"]
mod reports;
#[path = "legacy/routes.rs"]
mod routes;
#[path = "legacy/slow.rs"]
mod slow;
#[path = "legacy/world.rs"]
mod world;
