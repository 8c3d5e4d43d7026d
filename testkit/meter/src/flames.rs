//! A flame graph out of what `perf script` tells.

use std::io::{BufRead, BufReader, Write};

use anyhow::{Context as _, Result};
use inferno::{
    collapse::{
        Collapse as _,
        perf::{Folder, Options as FoldOptions},
    },
    flamegraph::{self, Options},
};

/// Folds samples and draws them.
///
/// # Errors
/// When there are none, or they cannot be read or written.
pub(crate) fn draw(samples: impl BufRead, picture: impl Write) -> Result<()> {
    let mut folded = Vec::new();
    Folder::from(FoldOptions::default()).collapse(samples, &mut folded).context("folding the samples")?;
    let mut options = Options::default();
    "where the time goes".clone_into(&mut options.title);
    flamegraph::from_reader(&mut options, BufReader::new(folded.as_slice()), picture)
        .context("drawing the samples")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_becomes_a_flame() {
        let told = "relay 12 1.0: 1 cpu-clock:\n\t55 leaf+0x1 (/bin/relay)\n\t44 root+0x2 (/bin/relay)\n\n";
        let mut picture = Vec::new();
        draw(told.as_bytes(), &mut picture).unwrap();
        let picture = String::from_utf8(picture).unwrap();
        assert!(
            picture.contains("<svg") && picture.contains("leaf") && picture.contains("root"),
            "{picture}"
        );
    }

    #[test]
    fn nothing_is_no_picture() {
        assert!(draw(&b""[..], Vec::new()).is_err());
    }
}
