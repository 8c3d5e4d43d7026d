//! Streams, written to files: byte for byte, into files that were not there, for their owner alone.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use signalbox_schemas::{
    api::ReadOutput,
    error::{ErrorCode, Problem},
    id::{CommandId, MachineId},
    limit,
    output::OutputStream,
};
use tokio::{fs::File, io::AsyncWriteExt as _, sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::client::{Client, Told, nats::OutputRange};

/// Bytes of a range, the most that a bridge gives.
const RANGE_BYTES: u32 = 512 * 1024;
/// Most bytes of a stream: what a relay keeps of one, and of its end.
const MOST_BYTES: u64 = limit::MAX_MAX_OUTPUT + 1024 * 1024;
/// Streams whose first range is asked for while those before them are written: on a link that takes a tenth of a second for an
/// answer, ten thousand short streams are so a minute and not a quarter of an hour. Up to 8 MiB wait in memory.
const AHEAD: usize = 16;
/// Tries of a range that nobody answered, or that a bridge cannot give just now.
const TRIES: u32 = 3;
/// Wait before another try, the longer the more there were.
const TRY_STEP: Duration = Duration::from_millis(250);
/// Most places of a stream where bytes are missing: as many as are shown.
const MOST_GAPS: usize = 16 * 1024;
/// Most bytes that are written between two tellings of how far it has come.
const TELL_BYTES: u64 = 1024 * 1024;

/// A stream and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The machine.
    pub machine: MachineId,
    /// The stream.
    pub stream: OutputStream,
    /// The file, as it was written: `~/` is the home of whoever writes it.
    pub path: PathBuf,
}

/// Streams to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Save {
    /// Chosen by the asker; comes back in the answers.
    pub tag: u64,
    /// The command.
    pub id: CommandId,
    /// Which streams, and where to.
    pub targets: Vec<Target>,
    /// The folder that they go to, where it is to be made.
    pub folder: Option<PathBuf>,
    /// Streams with nothing in them get no file.
    pub skips_empty: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Saved {
    /// Files.
    pub files: usize,
    /// Bytes of output in them.
    pub bytes: u64,
    /// Bytes that nobody has any more; where they were, a line says so.
    pub missing: u64,
    /// Streams of machines that are no more: of many the others are saved.
    pub absent: usize,
}

/// Writes all of it, and tells how far it has come; what was begun is removed when it cannot be ended.
///
/// # Errors
/// What was not done, and why: a file is there already, the disk, a bridge, or that it was stopped.
pub(super) async fn write(
    client: &Client,
    save: Save,
    told: &mpsc::Sender<Told>,
    stop: &CancellationToken,
) -> Result<Saved, Problem> {
    let saved = Saved { files: 0, bytes: 0, missing: 0, absent: 0 };
    let made = Made::default();
    let mut writer = Writer { client, told, tag: save.tag, made, saved, before: 0, told_bytes: 0 };
    tokio::select! {
        written = writer.write_all(save) => written?,
        () = stop.cancelled() => return Err(Problem::new(ErrorCode::Invalid, "stopped; nothing was saved")),
    }
    writer.made.0.clear();
    Ok(writer.saved)
}

/// Files that are ours and are not whole yet. Half of a file would pass for the whole: so they go with this.
#[derive(Debug, Default)]
struct Made(Vec<PathBuf>);

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.0 {
            // That it cannot be removed either changes nothing.
            let _ = fs::remove_file(path);
        }
    }
}

struct Writer<'a> {
    client: &'a Client,
    told: &'a mpsc::Sender<Told>,
    tag: u64,
    made: Made,
    saved: Saved,
    /// Bytes of the streams that are done.
    before: u64,
    /// Bytes that were told last.
    told_bytes: u64,
}

impl Writer<'_> {
    async fn write_all(&mut self, save: Save) -> Result<(), Problem> {
        let Save { id, targets, folder, skips_empty, .. } = save;
        if let Some(folder) = &folder {
            let folder = at_home(folder);
            crate::file::private_folder(&folder).map_err(|error| failed("make", &folder, &error))?;
        }
        let client = self.client;
        let begun = stream::iter(targets).map(|target| async move {
            let asked = ReadOutput {
                id,
                machine: target.machine.to_string(),
                stream: target.stream,
                offset: 0,
                limit: RANGE_BYTES,
            };
            let first = read(client, &asked).await;
            (target, asked, first)
        });
        let mut begun = std::pin::pin!(begun.buffered(AHEAD));
        while let Some((target, asked, first)) = begun.next().await {
            let first = match first {
                // Of many machines one may be no more: the others' output is as good without it.
                Err(problem) if folder.is_some() && problem.code == ErrorCode::NotFound => {
                    self.saved.absent += 1;
                    continue;
                }
                first => first?,
            };
            if !(skips_empty && first.total_bytes == 0) {
                self.write_one(asked, first, &at_home(&target.path)).await?;
            }
        }
        Ok(())
    }

    /// Writes one stream, as far as it goes now, from its first range on.
    async fn write_one(
        &mut self,
        mut asked: ReadOutput,
        mut range: OutputRange,
        path: &Path,
    ) -> Result<(), Problem> {
        let mut gaps = 0;
        let mut file = create(path).map_err(|error| failed("write", path, &error))?;
        self.made.0.push(path.to_owned());
        self.saved.files += 1;
        let before = self.saved.bytes;
        loop {
            let is_over = range.data.is_empty() && range.offset <= asked.offset;
            let goes_on_at = if is_over { range.total_bytes } else { range.offset }.max(asked.offset);
            let missing = goes_on_at - asked.offset;
            if missing > 0 {
                // Nobody shall take it for whole.
                let gap = format!("\n[signalbox: {missing} bytes are missing]\n");
                put(&mut file, path, gap.as_bytes()).await?;
                self.saved.missing = self.saved.missing.saturating_add(missing);
                gaps += 1;
            }
            put(&mut file, path, &range.data).await?;
            self.saved.bytes += range.data.len() as u64;
            asked.offset = goes_on_at.saturating_add(range.data.len() as u64);
            if self.saved.bytes - before > MOST_BYTES || gaps > MOST_GAPS {
                let why = "a bridge gives more output than any command may have; nothing was saved";
                return Err(Problem::new(ErrorCode::TooLarge, why));
            }
            self.tell(range.total_bytes).await;
            if is_over || asked.offset >= range.total_bytes {
                break;
            }
            range = read(self.client, &asked).await?;
        }
        self.before = self.before.saturating_add(range.total_bytes);
        file.flush().await.map_err(|error| failed("write", path, &error))?;
        file.sync_all().await.map_err(|error| failed("write", path, &error))
    }

    async fn tell(&mut self, total_bytes: u64) {
        let bytes = self.saved.bytes;
        if bytes - self.told_bytes < TELL_BYTES {
            return;
        }
        self.told_bytes = bytes;
        let of = self.before.saturating_add(total_bytes);
        // A terminal that is gone ends this by its parent.
        let _ = self.told.send(Told::Saving { tag: self.tag, bytes, of }).await;
    }
}

async fn put(file: &mut File, path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    file.write_all(bytes).await.map_err(|error| failed("write", path, &error))
}

/// A range; a bridge that is silent, or busy, is asked some more times.
async fn read(client: &Client, asked: &ReadOutput) -> Result<OutputRange, Problem> {
    let mut tries = 1;
    loop {
        match client.read_output(asked).await {
            Ok(range) => return Ok(range),
            Err(error) => {
                let problem = error.problem();
                let may_pass = matches!(problem.code, ErrorCode::NotAccepted | ErrorCode::NotCaughtUp);
                if tries >= TRIES || !may_pass {
                    return Err(problem);
                }
                sleep(TRY_STEP * tries).await;
                tries += 1;
            }
        }
    }
}

/// A file that was not there, for its owner alone.
fn create(path: &Path) -> io::Result<File> {
    let file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    Ok(File::from_std(file))
}

fn at_home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Problem {
    let path = path.display();
    let why = match error.kind() {
        io::ErrorKind::AlreadyExists => "it is there already; choose another name".to_owned(),
        _ => error.to_string(),
    };
    Problem::new(ErrorCode::Invalid, format!("cannot {what} {path}: {why}"))
}
