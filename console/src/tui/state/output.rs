//! The output of a command, or of one machine, as it fills the screen.

pub mod blocks;
pub mod pages;
pub mod source;
pub mod spans;
pub mod stored;

pub use self::source::Key;
