//! The event loop: the only part of the console that waits, draws or sends.
//!
//! Keys, sizes, ticks and signals come through one bounded channel, what the session tells through another; the first
//! goes before the second, and of the second no more is applied at a time than takes `PATIENCE`. A frame is drawn
//! when something that is seen changed, as soon as its [`Urgency`] says. Nothing here waits for the network: asks go
//! to the session with `try_send`.

mod input;
#[cfg(test)]
mod tests;

use std::{io, time::Duration};

use ratatui::{Terminal, backend::Backend, layout::Rect};
use rustix::process::Signal;
use tokio::{
    signal::unix::{Signal as Listener, SignalKind, signal},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval_at, sleep_until},
};

use crate::{
    client::{
        Ask, Told,
        clock::{now_ms, steady_ms},
    },
    tui::{
        TuiError, TuiOptions,
        effect::Effect,
        event::{EVENTS, Event},
        recorder::{Beginning, Recorder},
        state::{Now, Severity, State},
        terminal::{self, Guard, Sparing},
        update::update,
        urgency::{Urgency, urgency},
        view::view,
    },
};

/// Most events applied between two frames, so that a flood cannot starve the screen.
const BATCH: usize = 256;
/// What the session tells is applied for so long, then keys are looked at.
const PATIENCE: Duration = Duration::from_millis(2);
/// Ages and the clock move this often.
const TICK: Duration = Duration::from_secs(1);

/// Takes the terminal and shows the console until it is left.
///
/// # Errors
/// [`TuiError`].
pub async fn run(
    told: mpsc::Receiver<Told>,
    asks: mpsc::Sender<Ask>,
    options: TuiOptions,
) -> Result<(), TuiError> {
    let (sender, events) = mpsc::channel(EVENTS);
    let mut tasks = JoinSet::new();
    let signals = [
        (SignalKind::terminate(), Event::Terminate),
        (SignalKind::interrupt(), Event::Terminate),
        (SignalKind::hangup(), Event::Terminate),
        (SignalKind::from_raw(Signal::TSTP.as_raw()), Event::Stop),
        (SignalKind::from_raw(Signal::CONT.as_raw()), Event::Continued),
    ];
    for (kind, event) in signals {
        let listener = signal(kind).map_err(TuiError::Signals)?;
        tasks.spawn(watch_signal(listener, event, sender.clone()));
    }
    let mut guard = Guard::take().map_err(TuiError::Prepare)?;
    if options.mouse {
        guard.mouse(true).map_err(TuiError::Prepare)?;
    }
    let mut screen = terminal::screen().map_err(TuiError::Prepare)?;
    tasks.spawn(input::read(sender.clone()));
    tasks.spawn(tick(sender));
    let size = screen.size().map_err(TuiError::Prepare)?;
    let (size, begun) = ((size.width, size.height), now());
    let recorder = recorder(&options, size, begun).map_err(TuiError::Record)?;
    let mut state = State::new(options, size, begun);
    let mut sources = Sources { events, told, is_session_over: false, recorder };
    let shown = tokio::select! {
        shown = drive(&mut screen, &mut state, &mut sources, &asks, Some(&mut guard)) => shown.map(|_| ()),
        error = panic_of(&mut tasks) => Err(error),
    };
    tasks.shutdown().await;
    let written = sources.recorder.take().map_or(Ok(()), |recorder| recorder.end(&mut state));
    // How the console ended says more than that it could not be written down.
    shown.and(written.map_err(TuiError::Record))
}

/// What writes down what happens, if that is wished.
fn recorder(options: &TuiOptions, size: (u16, u16), begun: Now) -> io::Result<Option<Recorder>> {
    let Some((path, keys)) = &options.record else { return Ok(None) };
    Recorder::begin(path, Beginning::new(options, keys, size, begun)).map(Some)
}

/// Where events come from.
#[derive(Debug)]
pub struct Sources {
    /// What the operator does, signals and ticks.
    events: mpsc::Receiver<Event>,
    /// What the session tells.
    told: mpsc::Receiver<Told>,
    is_session_over: bool,
    /// What writes all of it down, if anything does.
    recorder: Option<Recorder>,
}

impl Sources {
    /// What was told, or that nothing more will be.
    fn heard(&mut self, told: Option<Told>) -> Event {
        self.is_session_over |= told.is_none();
        told.map_or(Event::SessionEnded, |told| Event::Told(Box::new(told)))
    }

    /// Writes something down. Where that fails the console goes on without, and says so.
    fn record(&mut self, state: &mut State, write: impl FnOnce(&mut Recorder) -> io::Result<()>) {
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = write(recorder)
        {
            self.recorder = None;
            state.say(Severity::Bad, format!("what happens is written down no more: {error}"));
        }
    }
}

/// When the next frame is due.
#[derive(Debug)]
struct Pace {
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Pace {
    /// Something is to be seen.
    fn want(&mut self, urgency: Urgency) {
        let now = Instant::now();
        let at = self.last.map_or(now, |last| now.max(last + urgency.gap()));
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }

    fn is_due(&self) -> bool {
        self.due.is_some_and(|due| due <= Instant::now())
    }

    /// A frame was drawn: it shows all that happened.
    fn drawn(&mut self) {
        (self.last, self.due) = (Some(Instant::now()), None);
    }
}

/// Applies events and draws until the state says quit or all sources are gone. Answers the frames drawn.
///
/// # Errors
/// [`TuiError::Draw`], [`TuiError::Prepare`] after a suspend, [`TuiError::Panicked`].
pub async fn drive<B>(
    screen: &mut Terminal<Sparing<B>>,
    state: &mut State,
    sources: &mut Sources,
    asks: &mpsc::Sender<Ask>,
    mut guard: Option<&mut Guard>,
) -> Result<u64, TuiError>
where
    B: Backend,
    B::Error: Send + Sync + 'static,
{
    let mut frames = 0;
    let mut pace = Pace { last: None, due: Some(Instant::now()) };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        if pace.is_due() {
            draw(screen, state)?;
            sources.record(state, Recorder::frame);
            frames += 1;
            pace.drawn();
        }
        let next_frame = pace.due.unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            count = sources.events.recv_many(&mut batch, BATCH) => if count == 0 {
                return Ok(frames);
            },
            () = sleep_until(next_frame), if pace.due.is_some() => continue,
            told = sources.told.recv(), if !sources.is_session_over => batch.push(sources.heard(told)),
        }
        let until = Instant::now() + PATIENCE;
        let mut waiting = batch.drain(..);
        while let Some(event) = waiting.next().or_else(|| more(sources, &pace, until)) {
            let now = now();
            if let Some(urgency) = urgency(state, now, &event) {
                pace.want(urgency);
            }
            sources.record(state, |recorder| recorder.take(now, &event));
            for effect in update(state, now, event) {
                carry_out(effect, screen, state, asks, guard.as_deref_mut()).await?;
            }
            if state.quit {
                return Ok(frames);
            }
        }
    }
}

/// Something else that was told, while nothing else waits.
fn more(sources: &mut Sources, pace: &Pace, until: Instant) -> Option<Event> {
    let has_time = sources.events.is_empty() && !pace.is_due() && Instant::now() < until;
    let told = has_time.then(|| sources.told.try_recv().ok()).flatten()?;
    Some(sources.heard(Some(told)))
}

fn now() -> Now {
    Now { ms: steady_ms(), wall_ms: now_ms() }
}

fn draw<B>(screen: &mut Terminal<Sparing<B>>, state: &mut State) -> Result<(), TuiError>
where
    B: Backend,
    B::Error: Send + Sync + 'static,
{
    if terminal::has_panicked() {
        return Err(TuiError::Panicked);
    }
    let failed = |error: B::Error| TuiError::Draw(io::Error::other(error));
    let size = screen.size().map_err(failed)?;
    state.size = (size.width, size.height);
    state.settle();
    screen.draw(|frame| view(state, frame)).map(|_| ()).map_err(failed)
}

async fn carry_out<B>(
    effect: Effect,
    screen: &mut Terminal<Sparing<B>>,
    state: &mut State,
    asks: &mpsc::Sender<Ask>,
    guard: Option<&mut Guard>,
) -> Result<(), TuiError>
where
    B: Backend,
    B::Error: Send + Sync + 'static,
{
    match effect {
        Effect::Ask(ask) => {
            if let Err(error) = asks.try_send(ask) {
                unsent(state, error);
            }
            return Ok(());
        }
        Effect::Suspend => {
            if let Some(guard) = guard
                && !guard.suspend().await.map_err(TuiError::Prepare)?
            {
                state.say(Severity::Warn, "there is no shell to come back from");
                return Ok(());
            }
        }
        Effect::Resume => {
            if let Some(guard) = guard {
                guard.retake().map_err(TuiError::Prepare)?;
            }
        }
        Effect::Copy(text) => {
            let copied = guard.map_or(Ok(()), |guard| {
                guard.copy(state.options.clipboard, state.options.most_copied, &text)
            });
            if let Err(error) = copied {
                state.say(Severity::Bad, format!("nothing was copied: {error}"));
            }
            return Ok(());
        }
        Effect::Mouse(is_ours) => {
            return guard.map_or(Ok(()), |guard| guard.mouse(is_ours)).map_err(TuiError::Prepare);
        }
        Effect::Redraw => {}
    }
    clear(screen).map_err(|error| TuiError::Draw(io::Error::other(error)))
}

/// Empties the screen, so that the next frame draws all of it. `Terminal::clear` would ask the terminal where its
/// cursor is, and never hear the answer: the reader of the keys has it.
fn clear<B: Backend>(screen: &mut Terminal<Sparing<B>>) -> Result<(), B::Error> {
    screen.backend_mut().forget();
    let size = screen.size()?;
    screen.resize(Rect::new(0, 0, size.width, size.height))
}

/// What could not be asked is said, and who waits for its answer waits no longer.
fn unsent(state: &mut State, error: mpsc::error::TrySendError<Ask>) {
    use mpsc::error::TrySendError::{Closed, Full};
    let (text, ask) = match error {
        Full(ask) => ("too many requests wait for the bridge; nothing was sent, try again", ask),
        Closed(ask) => ("the connection has ended; nothing was sent", ask),
    };
    state.unsent(&ask, text);
    state.say(Severity::Bad, text);
}

async fn tick(events: mpsc::Sender<Event>) {
    // With the second, so that the clock is neither late nor skips one.
    let rest = Duration::from_millis(1000 - now_ms() % 1000);
    let mut ticks = interval_at(Instant::now() + rest, TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        if events.send(Event::Tick).await.is_err() {
            return;
        }
    }
}

async fn watch_signal(mut listener: Listener, event: Event, events: mpsc::Sender<Event>) {
    while listener.recv().await.is_some() {
        if events.send(event.clone()).await.is_err() {
            return;
        }
    }
}

/// Waits for a task that panics; tasks that end are no matter.
async fn panic_of(tasks: &mut JoinSet<()>) -> TuiError {
    while let Some(ended) = tasks.join_next().await {
        if ended.is_err_and(|error| error.is_panic()) {
            return TuiError::Panicked;
        }
    }
    std::future::pending().await
}
