use super::*;
use crate::{
    client::{Stretch, TOLD},
    tui::{
        keymap::key,
        stage::{NOW, demo_machine, heartbeat, options},
    },
};
use ratatui::backend::TestBackend;

const SOON: Duration = Duration::from_secs(20);

struct Console {
    screen: Terminal<Sparing<TestBackend>>,
    state: State,
    sources: Sources,
    asks: mpsc::Sender<Ask>,
}

/// What makes something happen in a console.
struct World {
    events: mpsc::Sender<Event>,
    tell: mpsc::Sender<Told>,
    asked: mpsc::Receiver<Ask>,
}

fn console() -> (World, Console) {
    let (sender, events) = mpsc::channel(EVENTS);
    let (tell, told) = mpsc::channel(TOLD);
    let (asks, asked) = mpsc::channel(1);
    let screen = Terminal::new(Sparing::new(TestBackend::new(80, 24))).unwrap();
    let sources = Sources { events, told, is_session_over: false, recorder: None };
    let state = State::new(options(), (80, 24), NOW);
    (World { events: sender, tell, asked }, Console { screen, state, sources, asks })
}

/// A console that knows a hundred machines, all of which were just heard.
fn console_with_machines() -> (World, Console) {
    let (world, mut console) = console();
    for told in [Told::Machines(Stretch::whole((1..=100).map(demo_machine).collect())), heard(1..=100)] {
        update(&mut console.state, now(), Event::Told(Box::new(told)));
    }
    (world, console)
}

/// Signs of life of some machines.
fn heard(machines: std::ops::RangeInclusive<u32>) -> Told {
    let signs = machines.flat_map(|n| match heartbeat(n, steady_ms(), 50.0) {
        Told::Heartbeats(heard) => heard,
        other => panic!("no sign of life: {other:?}"),
    });
    Told::Heartbeats(signs.collect())
}

impl Console {
    async fn drive(&mut self) -> u64 {
        let Self { screen, state, sources, asks } = self;
        tokio::time::timeout(SOON, drive(screen, state, sources, asks, None)).await.unwrap().unwrap()
    }
}

impl World {
    /// Waits until all that was told was taken, and ends the console.
    async fn end(self) {
        while self.tell.capacity() < TOLD {
            tokio::task::yield_now().await;
        }
        self.events.send(Event::Terminate).await.unwrap();
    }
}

fn press(keys: &str) -> impl Iterator<Item = Event> {
    key::parse(keys).unwrap().into_iter().map(Event::Key)
}

#[tokio::test]
async fn a_burst_is_drawn_as_few_frames() {
    let (world, mut console) = console();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for _ in 0..20_000 {
            world.events.send(Event::Tick).await.unwrap();
        }
        world.end().await;
    });
    let begun = Instant::now();
    let frames = console.drive().await;
    let most = begun.elapsed().as_millis() / Urgency::News.gap().as_millis() + 2;
    assert!(u128::from(frames) <= most);
}

#[tokio::test]
async fn signs_of_life_that_are_not_on_the_screen_draw_nothing() {
    let (world, mut console) = console_with_machines();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // For as long as several frames would be due.
        let begun = Instant::now();
        while begun.elapsed() < 5 * Urgency::Figures.gap() {
            world.tell.send(heard(60..=99)).await.unwrap();
        }
        world.end().await;
    });
    assert_eq!(console.drive().await, 1, "the first frame is all there is to see");
}

#[tokio::test]
async fn signs_of_life_that_are_on_the_screen_are_drawn_together() {
    let (world, mut console) = console_with_machines();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        for _ in 0..5_000 {
            world.tell.send(heard(1..=40)).await.unwrap();
        }
        world.end().await;
    });
    let begun = Instant::now();
    let frames = console.drive().await;
    let most = begun.elapsed().as_millis() / Urgency::Figures.gap().as_millis() + 2;
    assert!((2..=most).contains(&u128::from(frames)), "{frames} frames, wanted 2 to {most}");
}

#[tokio::test]
async fn a_key_goes_before_what_was_told() {
    let (world, mut console) = console();
    for n in 1..=64 {
        world.tell.try_send(Told::Machines(Stretch::whole((1..=n).map(demo_machine).collect()))).unwrap();
    }
    for event in press("?").chain([Event::Terminate]) {
        world.events.try_send(event).unwrap();
    }
    console.drive().await;
    assert!(console.state.fleet.is_empty(), "{} machines were taken first", console.state.fleet.len());
    assert!(console.state.modal.is_some());
}

#[tokio::test]
async fn a_session_that_does_not_answer_freezes_nothing() {
    let (world, mut console) = console();
    for event in press("<c-r><c-r><c-r>").chain([Event::Terminate]) {
        world.events.send(event).await.unwrap();
    }
    console.drive().await;
    let status = console.state.status.unwrap();
    assert!(status.text.contains("nothing was sent"), "{}", status.text);
}

#[tokio::test]
async fn the_end_of_the_session_is_told_and_the_console_stays() {
    let (World { events, tell, asked }, mut console) = console();
    tell.try_send(Told::Machines(Stretch::default())).unwrap();
    drop((tell, asked));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        // On the one thread of this test: once the console has heard all of it, and waits.
        for event in press("<c-r><c-r>").chain([Event::Terminate]) {
            events.send(event).await.unwrap();
        }
    });
    console.drive().await;
    assert!(console.state.is_session_over);
    assert!(console.state.snapshot_ms.is_some(), "what was told before is not lost");
}
