//! The event loop: the only part of the console that waits, draws or sends.
//!
//! Keys, sizes, ticks, signals and what the session tells come through one bounded channel. A batch is applied,
//! then one frame is drawn, at most one each [`FRAME`]. Nothing here waits for the network: asks go to the
//! session with `try_send`, and what it tells is read by a task of its own.

mod input;

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
        state::{Now, Severity, State},
        terminal::{self, Guard},
        update::update,
        view::view,
    },
};

/// Shortest time between two frames.
pub const FRAME: Duration = Duration::from_millis(16);
/// Most events applied between two frames, so that a flood cannot starve the screen.
const BATCH: usize = 256;
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
    let (sender, mut events) = mpsc::channel(EVENTS);
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
    let mut screen = terminal::screen().map_err(TuiError::Prepare)?;
    tasks.spawn(input::read(sender.clone()));
    tasks.spawn(listen(told, sender.clone()));
    tasks.spawn(tick(sender));
    let size = screen.size().map_err(TuiError::Prepare)?;
    let mut state = State::new(options, (size.width, size.height), now());
    let shown = tokio::select! {
        shown = drive(&mut screen, &mut state, &mut events, &asks, Some(&mut guard)) => shown.map(|_| ()),
        error = panic_of(&mut tasks) => Err(error),
    };
    tasks.shutdown().await;
    shown
}

/// Applies events and draws until the state says quit or all sources are gone. Answers the frames drawn.
///
/// # Errors
/// [`TuiError::Draw`], [`TuiError::Prepare`] after a suspend, [`TuiError::Panicked`].
pub async fn drive<B>(
    screen: &mut Terminal<B>,
    state: &mut State,
    events: &mut mpsc::Receiver<Event>,
    asks: &mpsc::Sender<Ask>,
    mut guard: Option<&mut Guard>,
) -> Result<u64, TuiError>
where
    B: Backend,
    B::Error: Send + Sync + 'static,
{
    let mut frames = 0;
    let mut is_dirty = true;
    let mut next_frame = Instant::now();
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            biased;
            () = sleep_until(next_frame), if is_dirty => {
                draw(screen, state)?;
                frames += 1;
                is_dirty = false;
                next_frame = Instant::now() + FRAME;
            }
            count = events.recv_many(&mut batch, BATCH) => {
                if count == 0 {
                    return Ok(frames);
                }
                is_dirty = true;
                let now = now();
                for event in batch.drain(..) {
                    for effect in update(state, now, event) {
                        carry_out(effect, screen, state, asks, guard.as_deref_mut()).await?;
                    }
                }
                if state.quit {
                    return Ok(frames);
                }
            }
        }
    }
}

fn now() -> Now {
    Now { ms: steady_ms(), wall_ms: now_ms() }
}

fn draw<B>(screen: &mut Terminal<B>, state: &mut State) -> Result<(), TuiError>
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
    screen: &mut Terminal<B>,
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
        Effect::Redraw => {}
    }
    clear(screen).map_err(|error| TuiError::Draw(io::Error::other(error)))
}

/// Empties the screen, so that the next frame draws all of it. `Terminal::clear` would ask the terminal where its
/// cursor is, and never hear the answer: the reader of the keys has it.
fn clear<B: Backend>(screen: &mut Terminal<B>) -> Result<(), B::Error> {
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

async fn listen(mut told: mpsc::Receiver<Told>, events: mpsc::Sender<Event>) {
    while let Some(told) = told.recv().await {
        if events.send(Event::Told(Box::new(told))).await.is_err() {
            return;
        }
    }
    let _ = events.send(Event::SessionEnded).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tui::{
        keymap::key,
        stage::{NOW, options},
    };
    use ratatui::backend::TestBackend;

    struct Console {
        screen: Terminal<TestBackend>,
        state: State,
        events: mpsc::Receiver<Event>,
    }

    fn console() -> (mpsc::Sender<Event>, Console) {
        let (sender, events) = mpsc::channel(EVENTS);
        let screen = Terminal::new(TestBackend::new(80, 24)).unwrap();
        (sender, Console { screen, state: State::new(options(), (80, 24), NOW), events })
    }

    fn press(keys: &str) -> impl Iterator<Item = Event> {
        key::parse(keys).unwrap().into_iter().map(Event::Key)
    }

    #[tokio::test]
    async fn a_burst_is_drawn_as_few_frames() {
        let (sender, mut console) = console();
        let (asks, _asked) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            for _ in 0..20_000 {
                sender.send(Event::Tick).await.unwrap();
            }
            sender.send(Event::Terminate).await.unwrap();
        });
        let begun = Instant::now();
        let frames = drive(&mut console.screen, &mut console.state, &mut console.events, &asks, None).await;
        let most = begun.elapsed().as_millis() / FRAME.as_millis() + 2;
        assert!(u128::from(frames.unwrap()) <= most);
    }

    #[tokio::test]
    async fn a_session_that_does_not_answer_freezes_nothing() {
        let (sender, mut console) = console();
        let (asks, _asked) = mpsc::channel(1);
        for event in press("<c-r><c-r><c-r>").chain([Event::Terminate]) {
            sender.send(event).await.unwrap();
        }
        let shown = drive(&mut console.screen, &mut console.state, &mut console.events, &asks, None).await;
        assert!(shown.is_ok());
        let status = console.state.status.unwrap();
        assert!(status.text.contains("nothing was sent"), "{}", status.text);
    }

    #[tokio::test]
    async fn the_end_of_the_session_is_told_and_the_console_stays() {
        let (sender, mut console) = console();
        let (tell, told) = mpsc::channel(1);
        let (asks, asked) = mpsc::channel(1);
        drop((tell, asked));
        listen(told, sender.clone()).await;
        for event in press("<c-r>").chain([Event::Terminate]) {
            sender.send(event).await.unwrap();
        }
        drive(&mut console.screen, &mut console.state, &mut console.events, &asks, None).await.unwrap();
        assert!(console.state.is_session_over);
    }
}
