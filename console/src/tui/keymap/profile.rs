//! Keys that other programs have put into people's hands. The plain table knows arrows and the letters of vi already.

use super::{Rebinding, rebind::EVERY_SCREEN};

/// Whose habits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Profile {
    /// The table as it is.
    #[default]
    Default,
    /// As in vim.
    Vim,
    /// As in Emacs.
    Emacs,
}

/// Mode, key, name.
type Habit = (&'static str, &'static str, &'static str);

const VIM: &[Habit] = &[
    ("machines", "V", "mark-range"),
    ("machines", "v", "mark-range"),
    ("command", "n", "follow"),
    (EVERY_SCREEN, "<c-o>", "before"),
    (EVERY_SCREEN, "<tab>", "after"),
    (EVERY_SCREEN, "<a-m>", "mouse"),
];

const EMACS: &[Habit] = &[
    (EVERY_SCREEN, "<c-n>", "down"),
    (EVERY_SCREEN, "<c-p>", "up"),
    (EVERY_SCREEN, "<c-v>", "page-down"),
    (EVERY_SCREEN, "<a-v>", "page-up"),
    (EVERY_SCREEN, "<a-lt>", "first"),
    (EVERY_SCREEN, "<a->>", "last"),
    (EVERY_SCREEN, "<c-g>", "back"),
    (EVERY_SCREEN, "<a-x>", "palette"),
    (EVERY_SCREEN, "<c-s>", "filter"),
    (EVERY_SCREEN, "<a-w>", "copy"),
    ("output", "<c-s>", "search"),
    ("filter", "<c-g>", "leave"),
    ("line", "<c-g>", "leave"),
    ("prompt", "<c-g>", "leave"),
    ("palette", "<c-g>", "leave"),
    ("confirm", "<c-g>", "no"),
    ("help", "<c-g>", "leave"),
];

impl Profile {
    /// All profiles.
    pub const ALL: [Self; 3] = [Self::Default, Self::Vim, Self::Emacs];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Vim => "vim",
            Self::Emacs => "emacs",
        }
    }

    /// A profile by its name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|profile| profile.name() == name)
    }

    /// What it binds beside the table. What a screen does not have is left out there.
    pub(super) fn rebindings(self) -> Vec<Rebinding> {
        let habits = match self {
            Self::Default => &[],
            Self::Vim => VIM,
            Self::Emacs => EMACS,
        };
        let rebinding = |(mode, key, name): &Habit| Rebinding {
            mode: (*mode).to_owned(),
            key: (*key).to_owned(),
            name: (*name).to_owned(),
        };
        habits.iter().map(rebinding).collect()
    }
}
