//! `signalbox context`.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use signalbox_schemas::error::report;

use super::{
    call::{self, Row},
    card::{NOTHING, card},
    clean, event,
    exit::{self, Failure},
    table::Column,
};
use crate::{
    args::fleet::{AddContext, Context as Args, ContextAction},
    client::clock::now_ms,
    config::{Asked, ConfigError, Environment},
    contexts::{
        self, Chosen, NONE,
        current::{Place, Used},
        edit::{self, EditError},
    },
    file,
    settings::{Settings, context::Context, file as settings_file, near},
    up::lock::StateLock,
};

/// One context as it is listed.
#[derive(Debug, Serialize, Deserialize)]
struct Listed {
    name: String,
    /// Whether it is the one that is meant now.
    current: bool,
    protected: bool,
    nats: Option<String>,
    state_dir: Option<PathBuf>,
    login: Option<PathBuf>,
    signing_key: Option<PathBuf>,
    colour: Option<crate::settings::context::Colour>,
}

impl Row for Listed {
    const COLUMNS: &'static [Column] =
        &[("", 0), ("CONTEXT", 0), ("PROTECTED", 1), ("IDENTITY", 3), ("BROKER", 2)];

    fn key(&self) -> String {
        self.name.clone()
    }

    fn cells(&self, _ellipsis: char) -> Vec<String> {
        let identity = self.login.as_ref().or(self.state_dir.as_ref());
        let shown = |text: Option<String>| text.map_or_else(|| NOTHING.to_owned(), |text| clean::line(&text));
        vec![
            if self.current { "*" } else { "" }.to_owned(),
            self.name.clone(),
            if self.protected { "yes" } else { NOTHING }.to_owned(),
            shown(identity.map(|path| path.display().to_string())),
            shown(self.nats.clone()),
        ]
    }
}

/// A state directory that gets another name.
struct Moving {
    old: PathBuf,
    moved: PathBuf,
    _lock: StateLock,
}

/// What all of them work on.
struct Desk {
    environment: Environment,
    asked: Asked,
    file: PathBuf,
    text: String,
    settings: Settings,
    place: Place,
    used: Used,
    /// Why it cannot be said what is used, if it cannot.
    unread: Option<ConfigError>,
}

/// Does one thing with contexts. It needs no fleet.
///
/// # Errors
/// [`Failure`].
pub async fn act(asked: Asked, environment: Environment, args: Args) -> Result<u8, Failure> {
    let opened = tokio::task::spawn_blocking(move || Desk::open(asked, environment)).await;
    let desk = opened.map_err(|error| failed("read the contexts", &error))??;
    match args.action {
        ContextAction::List => desk.list(args.json).await,
        ContextAction::Show { name } => desk.show(name, args.json).await,
        ContextAction::Use { name } => desk.change_over(&name).await,
        ContextAction::Add(added) => desk.add(added).await,
        ContextAction::Remove { name } => desk.remove(&name).await,
        ContextAction::Rename { name, new } => desk.rename(&name, &new).await,
    }
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::system(what, error)
}

impl Desk {
    fn open(asked: Asked, environment: Environment) -> Result<Self, Failure> {
        const WHAT: &str = "read the contexts";
        let lost = || {
            Failure::new(
                exit::USAGE,
                format!("cannot {WHAT}: set HOME, or XDG_STATE_HOME and SIGNALBOX_CONFIG"),
            )
        };
        let file = settings_file::path(&environment).ok_or_else(lost)?;
        let place = Place::of(&environment).ok_or_else(lost)?;
        let text = settings_file::read_text(&file)
            .map_err(|error| failed(WHAT, &error).usage())?
            .unwrap_or_default();
        let settings = settings_file::of_text(&text, &file).map_err(|error| failed(WHAT, &error).usage())?;
        // One that cannot be read names nothing, and is written anew by `use`.
        let (used, unread) = match place.read() {
            Ok(used) => (used, None),
            Err(source) => (Used::default(), Some(ConfigError::Used { path: place.file(), source })),
        };
        Ok(Self { environment, asked, file, text, settings, place, used, unread })
    }

    /// Why it cannot be said which context is meant; `None`: it can.
    fn unsaid(&self) -> Option<Failure> {
        let unread = self.unread.as_ref().filter(|_| !contexts::is_named(&self.asked, &self.environment));
        unread.map(|error| failed("say which context is used", error).usage())
    }

    /// The name that is meant now; `None`: no context.
    fn meant(&self) -> Result<Option<(String, contexts::By)>, Failure> {
        contexts::choose(&self.asked, &self.environment, self.used.name.as_deref())
            .map_err(|both| failed("say which context is meant", &both).usage())
    }

    fn find(&self, name: &str) -> Result<Chosen, Failure> {
        let named = (name.to_owned(), contexts::By::Flag);
        let home = self.environment.home.as_deref();
        let found = contexts::find(&self.settings, named, &self.file, self.place.folder(), home);
        found.map_err(|_| self.unknown(name))
    }

    fn unknown(&self, name: &str) -> Failure {
        let advice = near::advice(name, self.settings.contexts.keys().map(String::as_str));
        let line = format!("there is no context {name:?} in {}{advice}", self.file.display());
        Failure::new(exit::USAGE, clean::line(&line))
    }

    fn listed(&self, name: &str, meant: Option<&str>) -> Result<Listed, Failure> {
        let Chosen { name, context, .. } = self.find(name)?;
        Ok(Listed {
            current: meant == Some(&name),
            name,
            protected: context.protected,
            colour: context.shown_in(),
            nats: context.nats,
            state_dir: context.state_dir,
            login: context.login,
            signing_key: context.signing_key,
        })
    }

    async fn list(&self, json: bool) -> Result<u8, Failure> {
        let meant = self.meant()?.map(|(name, _)| name);
        let names = self.settings.contexts.keys();
        let listed: Vec<Listed> =
            names.map(|name| self.listed(name, meant.as_deref())).collect::<Result<_, _>>()?;
        let code = call::rows(&listed, json, self.environment.ellipsis()).await?;
        // Those that there are do not depend on it.
        self.unsaid().map_or(Ok(code), Err)
    }

    async fn show(&self, name: Option<String>, json: bool) -> Result<u8, Failure> {
        if let Some(failure) = self.unsaid().filter(|_| name.is_none()) {
            return Err(failure);
        }
        let meant = self.meant()?;
        let Some(name) = name.or_else(|| meant.as_ref().map(|(name, _)| name.clone())) else {
            let state = self.asked.state_dir.clone().or_else(|| self.environment.default_state_dir());
            let shown = serde_json::json!({ "name": NONE, "state_dir": state });
            return call::print(if json { event::line(&shown) } else { card(&shown, now_ms()).into_bytes() })
                .await;
        };
        let listed = self.listed(&name, meant.as_ref().map(|(name, _)| name.as_str()))?;
        call::print(if json { event::line(&listed) } else { card(&listed, now_ms()).into_bytes() }).await
    }

    async fn change_over(&self, name: &str) -> Result<u8, Failure> {
        let name = match name {
            "-" => self.used.before.clone(),
            NONE => None,
            name => Some(self.find(name)?.name),
        };
        if let Some(name) = &name {
            // The one before may be gone.
            self.find(name)?;
        }
        let before = if name == self.used.name { self.used.before.clone() } else { self.used.name.clone() };
        self.write_used(Used { name: name.clone(), before }).await?;
        super::say(&format!("the context is {} now", name.as_deref().unwrap_or(NONE)));
        if let Some((over, by)) = self.meant()?.filter(|(_, by)| *by != contexts::By::Use) {
            super::say(&format!("but {} says {over}, and goes before it", by.words()));
        }
        Ok(exit::OK)
    }

    async fn add(&self, added: AddContext) -> Result<u8, Failure> {
        let what = format!("add the context {}", added.name);
        let full = |path: Option<PathBuf>| path.map(std::path::absolute).transpose();
        let context = || -> std::io::Result<Context> {
            Ok(Context {
                state_dir: full(self.asked.state_dir.clone())?,
                login: full(added.login.clone())?,
                signing_key: full(added.signing_key.clone())?,
                nats: added.nats_url.clone().or_else(|| self.asked.nats_url.clone()),
                protected: added.protected,
                colour: added.colour,
            })
        };
        let context = context().map_err(|error| failed(&what, &error))?;
        let text =
            edit::add(&self.text, &added.name, &context).map_err(|error| self.refused(&what, &error))?;
        self.write(&what, text).await?;
        if added.used {
            let name = Some(added.name.clone());
            let before =
                if name == self.used.name { self.used.before.clone() } else { self.used.name.clone() };
            self.write_used(Used { name, before }).await?;
        }
        Ok(exit::OK)
    }

    async fn remove(&self, name: &str) -> Result<u8, Failure> {
        let what = format!("remove the context {name}");
        let text = edit::remove(&self.text, name).map_err(|error| self.refused(&what, &error))?;
        // Before it could be missed: a context that is used and is no more stops every command.
        let without = |used: &Option<String>| used.clone().filter(|used| used != name);
        let used = Used { name: without(&self.used.name), before: without(&self.used.before) };
        if used != self.used {
            let is_other = used.name != self.used.name;
            self.write_used(used).await?;
            if is_other {
                super::say(&format!("the context is {NONE} now"));
            }
        }
        self.write(&what, text).await?;
        Ok(exit::OK)
    }

    async fn rename(&self, name: &str, new: &str) -> Result<u8, Failure> {
        let what = format!("rename the context {name}");
        let text = edit::rename(&self.text, name, new).map_err(|error| self.refused(&what, &error))?;
        let moving = self.moving(&what, name, new)?;
        self.write(&what, text).await?;
        if let Some(Moving { old, moved, .. }) = &moving {
            std::fs::rename(old, moved).map_err(|error| failed(&what, &error))?;
        }
        let renamed =
            |used: &Option<String>| used.clone().map(|used| if used == name { new.to_owned() } else { used });
        let used = Used { name: renamed(&self.used.name), before: renamed(&self.used.before) };
        if used == self.used { Ok(exit::OK) } else { self.write_used(used).await.map(|()| exit::OK) }
    }

    /// The folder that has to move with the name, if the context has one of its own; nobody starts anything in it meanwhile.
    fn moving(&self, what: &str, name: &str, new: &str) -> Result<Option<Moving>, Failure> {
        let names_directory = |context: &Context| context.state_dir.is_some();
        if self.settings.contexts.get(name).is_none_or(names_directory) {
            return Ok(None);
        }
        let (old, moved) = (self.place.folder().join(name), self.place.folder().join(new));
        if moved.exists() {
            let line =
                format!("cannot {what}: {} is there already, of a context that was removed", moved.display());
            return Err(Failure::new(exit::FAILED, line));
        }
        if !old.exists() {
            return Ok(None);
        }
        let lock = StateLock::take(&old).map_err(|error| failed(what, &error))?;
        Ok(Some(Moving { old, moved, _lock: lock }))
    }

    fn refused(&self, what: &str, error: &EditError) -> Failure {
        if let EditError::Unknown(name) = error {
            return self.unknown(name);
        }
        let line = format!("cannot {what} in {}: {}", self.file.display(), report(error));
        Failure::new(exit::USAGE, clean::line(&line))
    }

    async fn write(&self, what: &str, text: String) -> Result<(), Failure> {
        replace(self.file.clone(), text.into_bytes()).await.map_err(|error| failed(what, &error))
    }

    async fn write_used(&self, used: Used) -> Result<(), Failure> {
        let place = self.place.clone();
        let written = tokio::task::spawn_blocking(move || place.write(&used)).await;
        let written = written.map_err(|error| failed("change the context", &error))?;
        written.map_err(|error| failed(&format!("write {}", self.place.file().display()), &error))
    }
}

async fn replace(path: PathBuf, bytes: Vec<u8>) -> std::io::Result<()> {
    let write = move |path: &Path| file::replace(path, &bytes);
    tokio::task::spawn_blocking(move || write(&path)).await.map_err(std::io::Error::other)?
}
