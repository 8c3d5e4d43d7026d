//! An output that fills the screen: stories, and a session that has 128 MiB to read.

use bytes::Bytes;
use rstest::rstest;
use signalbox_schemas::{
    api::{OutputView, RunView},
    error::{ErrorCode, Problem},
    output::OutputStream,
    run::RunState,
};

use super::{
    super::{
        effect::Effect,
        stage::{Stage, command_id, machine_id, run, summary},
        state::{Screen, output::Whose},
    },
    Modal,
};
use crate::client::{Ask, Told, nats::OutputRange, session::save::Saved};

const MIB: u64 = 1024 * 1024;
/// Bytes of a line of the large output.
const LINE: u64 = 64;

/// Bytes of the large output: line after line, each with its number.
fn large(from: u64, to: u64) -> Bytes {
    let lines = from / LINE..=to.saturating_sub(1) / LINE;
    let text =
        lines.flat_map(|n| format!("line {n:09} {}\n", "x".repeat(48)).into_bytes()).collect::<Vec<_>>();
    let skip = usize::try_from(from % LINE).unwrap();
    Bytes::from(text).slice(skip..skip + usize::try_from(to - from).unwrap())
}

/// A run that printed so much on stdout has ended.
fn ended(machine: u32, bytes: u64) -> RunView {
    let stdout = OutputView { bytes, ..OutputView::default() };
    RunView { stdout, ..run(machine, RunState::Completed) }
}

/// The output of a finished run of 128 MiB is on the screen.
fn stage_with(bytes: u64, columns: u16, rows: u16) -> Stage {
    let mut stage = Stage::demo(columns, rows);
    stage.keys("xseq<enter>");
    stage.accept(3, 1);
    stage.tell(Told::Run { id: command_id(3), run: ended(1, bytes) });
    stage.asks.clear();
    stage.keys("o");
    stage
}

/// Answers all ranges that are asked for; answers how many those were.
fn serve(stage: &mut Stage, total: u64) -> usize {
    let mut served = 0;
    loop {
        let asks = std::mem::take(&mut stage.asks);
        let mut ranges = asks.into_iter().filter_map(|ask| match ask {
            Ask::ReadOutput { from, most, stream, .. } => Some((from, u64::from(most), stream)),
            _ => None,
        });
        let Some((from, most, stream)) = ranges.next() else { return served };
        for (from, most, stream) in std::iter::once((from, most, stream)).chain(ranges) {
            served += 1;
            assert!(served < 5_000, "it asks for ever");
            assert!(most <= 256 * 1024, "{most} bytes at once");
            let data = large(from, total.min(from + most).max(from));
            answer(
                stage,
                stream,
                from,
                Ok(OutputRange { offset: from, total_bytes: total, is_truncated: false, data }),
            );
        }
    }
}

fn answer(stage: &mut Stage, stream: OutputStream, from: u64, range: Result<OutputRange, Problem>) {
    stage.tell(Told::OutputRange { id: command_id(3), machine: machine_id(1), stream, from, range });
}

fn line(n: u64) -> String {
    format!("line {n:09}")
}

/// A running command on one machine whose output fills the screen.
fn running(text: &str) -> Stage {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xseq<enter>");
    stage.accept(3, 1);
    stage.run(3, 1, RunState::Executing);
    stage.output(3, 1, 0, text);
    stage.keys("o");
    stage
}

fn stderr(stage: &mut Stage, machine: u32, text: &str) {
    stage.tell(Told::Output {
        id: command_id(3),
        machine: machine_id(machine),
        stream: OutputStream::Stderr,
        offset: 0,
        data: Bytes::copy_from_slice(text.as_bytes()),
    });
}

#[test]
fn the_output_of_a_row_fills_the_screen_and_is_left_again() {
    let mut stage = running("one\ntwo\n");
    assert_eq!(stage.state.screen, Screen::Output(command_id(3), Whose::One(machine_id(1))));
    let screen = stage.screen();
    assert!(screen.contains("output of demo-1") && screen.contains("following"), "{screen}");
    assert!(screen.contains("  one\n") && screen.contains("100% of 8 B"), "{screen}");
    stage.output(3, 1, 8, "three\n");
    assert!(stage.screen().contains("three"), "it is told on");
    stage.keys("<esc>");
    assert_eq!(stage.state.screen, Screen::Command(command_id(3)));
    stage.keys("]");
    assert!(matches!(stage.state.screen, Screen::Output(..)));
    assert!(!stage.asks.iter().any(|ask| matches!(ask, Ask::Unwatch { .. })), "it is the same command");
    stage.keys("m");
    assert_eq!(stage.asks.last(), Some(&Ask::Unwatch { id: command_id(3) }));
}

#[test]
fn of_a_group_it_is_that_of_one_of_them_and_of_all_it_is_merged() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("axid<enter>");
    stage.accept(3, 3);
    for machine in 1..=3 {
        stage.output(3, machine, 0, "same\n");
        stage.run(3, machine, RunState::Completed);
    }
    stage.screen();
    stage.keys("o");
    assert_eq!(stage.state.screen, Screen::Output(command_id(3), Whose::All));
    let screen = stage.screen();
    assert!(screen.contains("demo-2 │ same") && screen.matches("same").count() == 3, "{screen}");
    stage.keys("<esc>jo");
    assert!(matches!(stage.state.screen, Screen::Output(_, Whose::One(_))));
    assert_eq!(stage.screen().matches("same").count(), 1);
}

#[test]
fn who_is_faster_than_the_first_run_is_told_sees_that_of_the_one() {
    let mut stage = Stage::demo(80, 24);
    stage.tell(Told::Command(summary(3, "seq", &[(RunState::Completed, 1)])));
    stage.keys("c<enter>o");
    assert_eq!(stage.state.screen, Screen::Output(command_id(3), Whose::All));
    stage.tell(Told::Run { id: command_id(3), run: ended(1, 8 * MIB) });
    serve(&mut stage, 8 * MIB);
    let screen = stage.screen();
    assert!(screen.contains("output of demo-1") && screen.contains("100% of 8.0 MiB"), "{screen}");
    stage.keys("<esc>");
    assert_eq!(stage.state.screen, Screen::Command(command_id(3)));
}

#[test]
fn what_is_read_stays_where_it_is_until_it_is_followed() {
    let text =
        |from: u32, to: u32| (from..to).map(|n| format!("row {n:04}")).collect::<Vec<_>>().join("\n") + "\n";
    let mut stage = running(&text(0, 100));
    assert!(stage.screen().contains("row 0099"));
    stage.keys("<pgup>");
    let before = stage.screen();
    assert!(!before.contains("row 0099") && before.contains('%'), "{before}");
    stage.output(3, 1, 900, &text(100, 200));
    let first = |screen: &str| screen.lines().find(|line| line.contains("row 0")).map(str::to_owned);
    assert_eq!(first(&stage.screen()), first(&before));
    stage.keys("f");
    assert!(stage.screen().contains("row 0199"));
    stage.keys("gj");
    assert!(stage.screen().contains("row 0001") && !stage.screen().contains("row 0000"));
    stage.keys("%50<enter>");
    assert!(stage.screen().contains("row 0100"), "{}", stage.screen());
    stage.keys("%200<enter>");
    assert!(stage.screen().contains("a number from 0 to 100"), "{}", stage.screen());
}

#[test]
fn lines_are_wrapped_numbered_and_timed_and_go_sideways() {
    let long = format!("{}END\n", "abcdefghij".repeat(9));
    let mut stage = running(&format!("first\n{long}"));
    assert!(!stage.screen().contains("END"));
    stage.keys("lll");
    assert!(stage.screen().contains("END") && stage.screen().contains("from column 25"));
    stage.keys("w");
    let screen = stage.screen();
    assert!(
        screen.contains("END") && screen.contains("first") && !screen.contains("from column"),
        "{screen}"
    );
    stage.keys("#t");
    let screen = stage.screen();
    assert!(screen.contains("14:02:07       1 first"), "{screen}");
    assert_eq!(screen.matches("14:02:07 ").count(), 2, "a time for each line and not for each row: {screen}");
}

#[test]
fn streams_are_told_apart_and_shown_one_by_one() {
    let mut stage = running("out\n");
    stderr(&mut stage, 1, "err\n");
    let screen = stage.screen();
    assert!(screen.contains("▌  out\n") && screen.contains(" e err\n"), "{screen}");
    stage.keys("<tab>");
    assert!(stage.screen().contains("out\n") && !stage.screen().contains("err\n"));
    stage.keys("<tab>");
    assert!(!stage.screen().contains("  out\n") && stage.screen().contains("err\n"));
    stage.keys("<tab>");
    assert!(stage.screen().contains("out\n") && stage.screen().contains("err\n"));
}

/// What the console says itself stands behind a mark where no machine can write.
#[test]
fn what_the_console_says_itself_cannot_be_imitated() {
    let mut stage = running("x");
    stage.output(3, 1, 1_001, "-- 1000 B left out --\n \u{25b2} -- 1000 B left out --\n");
    let screen = stage.screen();
    let said: Vec<&str> = screen.lines().filter(|line| line.contains("left out")).collect();
    assert_eq!(said, [" ▲ -- 1000 B left out --", "   -- 1000 B left out --", "    ▲ -- 1000 B left out --"]);
    stage.keys("ww<tab>");
    let gutters = stage.screen().lines().filter(|line| line.starts_with(" ▲")).count();
    assert_eq!(gutters, 1, "{}", stage.screen());
}

#[test]
fn a_text_is_looked_for_counted_and_gone_to() {
    let row = |n: u32| format!("row {n:03} {}", if n % 50 == 7 { "Needle" } else { "" });
    let text = (0..300).map(row).collect::<Vec<_>>().join("\n") + "\n";
    let mut stage = running(&text);
    stage.keys("g/needle<enter>");
    let screen = stage.screen();
    assert!(screen.contains("row 007") && screen.contains("needle: 1 of 6"), "{screen}");
    stage.keys("nn");
    let screen = stage.screen();
    assert!(screen.contains("row 107") && screen.contains("3 of 6"), "{screen}");
    stage.keys("NNN");
    let screen = stage.screen();
    assert!(
        screen.contains("row 257") && screen.contains("6 of 6") && screen.contains("other end"),
        "{screen}"
    );
    stage.keys("y");
    assert_eq!(stage.effects.last(), Some(&Effect::Copy("row 257 Needle".to_owned())));
    stage.keys("&");
    let screen = stage.screen();
    assert_eq!(screen.matches("Needle").count(), 6, "{screen}");
    // What comes later is looked into, too.
    stage.output(3, 1, text.len() as u64, "a needle ");
    stage.output(3, 1, text.len() as u64 + 9, "grows\nnothing\n");
    let screen = stage.screen();
    assert!(
        screen.contains("a needle grows") && screen.contains("of 7") && !screen.contains("nothing"),
        "{screen}"
    );
    stage.keys("<esc>G");
    assert!(stage.screen().contains("nothing"));
    stage.keys("/nowhere<enter>");
    assert!(stage.screen().contains("\"nowhere\" is nowhere in it"), "{}", stage.screen());
    stage.keys("/!/row|needle|nowhere/<enter>");
    assert!(stage.screen().contains("1 of 1"), "{}", stage.screen());
    stage.keys("//(<enter>");
    assert!(matches!(stage.state.modal, Some(Modal::Line(_))), "what makes no sense stays to be mended");
    assert!(stage.screen().contains("unclosed group"), "{}", stage.screen());
}

#[test]
fn a_line_that_no_longer_has_it_is_no_longer_counted() {
    let mut stage = running("needle: 10 %");
    stage.keys("/needle<enter>");
    assert!(stage.screen().contains("1 of 1"), "{}", stage.screen());
    stage.output(3, 1, 12, "\rdone\n");
    assert!(stage.screen().contains("needle: 0"), "{}", stage.screen());
}

#[test]
fn a_large_output_opens_at_once_and_reads_what_is_looked_at() {
    let total = 128 * MIB;
    let mut stage = stage_with(total, 120, 40);
    assert!(stage.screen().contains("reading"), "{}", stage.screen());
    let opened = serve(&mut stage, total);
    let last = total / LINE - 1;
    let screen = stage.screen();
    assert!(screen.contains(&line(last)) && screen.contains("100% of 128 MiB"), "{screen}");
    stage.keys("<end>");
    let mut pages = 0;
    for _ in 0..50 {
        stage.keys("<pgup>");
        pages += serve(&mut stage, total);
    }
    let seen = stage.screen();
    // A page keeps one row of the one before.
    let rows = u64::try_from(seen.matches("line 0").count()).unwrap();
    assert!(seen.contains(&line(last - 50 * (rows - 1))), "{seen}");
    stage.keys("<home>");
    let home = serve(&mut stage, total);
    assert!(stage.screen().contains(&line(0)), "{}", stage.screen());
    assert!(
        opened <= 3 && pages <= 2 && home <= 1,
        "{opened} to open it, {pages} for 50 pages, {home} for home"
    );
    assert!(stage.state.output.stored.as_ref().unwrap().pages.bytes() < 2 * 1024 * 1024);
}

#[test]
fn a_jump_and_pages_beyond_what_is_read_end_where_they_should() {
    let total = 128 * MIB;
    let mut stage = stage_with(total, 120, 40);
    serve(&mut stage, total);
    stage.keys("%50<enter>");
    assert!(stage.screen().contains("reading"), "{}", stage.screen());
    serve(&mut stage, total);
    let middle = total / LINE / 2;
    assert!(stage.screen().contains(&line(middle)), "{}", stage.screen());
    // Pressed while nothing of it is here yet.
    stage.keys("%25<enter>jjj");
    serve(&mut stage, total);
    let screen = stage.screen();
    assert!(screen.contains(&line(middle / 2 + 3)) && !screen.contains(&line(middle / 2 + 2)), "{screen}");
    stage.keys("#");
    assert!(stage.screen().contains(&format!("{} {}", total / 4 + 3 * LINE, line(middle / 2 + 3))));
    assert!(stage.screen().contains("25% of 128 MiB"), "{}", stage.screen());
}

#[test]
fn a_search_reads_on_says_how_far_it_is_and_can_be_stopped() {
    let total = 8 * MIB;
    let mut stage = stage_with(total, 120, 40);
    serve(&mut stage, total);
    let wanted = total / LINE - 9_000;
    stage.keys(&format!("g/{wanted:09}<enter>"));
    assert!(stage.screen().contains("searched 0 of 8 MiB"), "{}", stage.screen());
    let asked = stage.asks.iter().filter(|ask| matches!(ask, Ask::ReadOutput { .. })).count();
    assert_eq!(asked, 2, "two at once");
    stage.keys("<esc>");
    stage.asks.retain(|ask| matches!(ask, Ask::ReadOutput { .. }));
    assert!(serve(&mut stage, total) <= 3, "it reads on although it was stopped");
    stage.keys("n");
    serve(&mut stage, total);
    let screen = stage.screen();
    assert!(screen.contains(&line(wanted)) && screen.contains("1 of 1+"), "{screen}");
    // The rest is looked into, and there is no other.
    stage.keys("n");
    serve(&mut stage, total);
    let screen = stage.screen();
    assert!(screen.contains("1 of 1 ") && screen.contains("other end"), "{screen}");
    stage.keys("&");
    serve(&mut stage, total);
    assert_eq!(stage.screen().matches("line 0").count(), 1, "{}", stage.screen());
}

#[test]
fn only_lines_with_it_are_read_as_far_as_they_are_seen() {
    let total = 128 * MIB;
    let mut stage = stage_with(total, 80, 24);
    serve(&mut stage, total);
    // One of a thousand lines.
    stage.keys("g/000<space>x<enter>");
    serve(&mut stage, total);
    stage.keys("&");
    let read = serve(&mut stage, total);
    let screen = stage.screen();
    assert!(screen.contains(&line(0)) && screen.contains(&line(17_000)), "{screen}");
    assert!(read <= 8, "{read} pages were read for a screen");
    stage.keys("<pgdn>");
    serve(&mut stage, total);
    assert!(stage.screen().contains(&line(20_000)), "{}", stage.screen());
}

#[test]
fn more_than_can_be_remembered_of_a_search_is_forgotten_and_that_is_said() {
    let total = 4 * MIB;
    let mut stage = stage_with(total, 80, 24);
    serve(&mut stage, total);
    stage.keys("g/xxx<enter>");
    for _ in 0..5 {
        stage.keys("%99<enter>n");
        serve(&mut stage, total);
        stage.keys("gn");
        serve(&mut stage, total);
    }
    stage.keys("&G");
    serve(&mut stage, total);
    assert!(stage.screen().contains(&line(total / LINE - 1)), "{}", stage.screen());
    stage.keys("N<pgup><pgup>g");
    serve(&mut stage, total);
    assert!(stage.screen().contains(&line(0)), "{}", stage.screen());
}

#[test]
fn a_range_that_is_refused_is_said_in_place_and_asked_for_again_by_a_key() {
    let total = 8 * MIB;
    let mut stage = stage_with(total, 100, 24);
    let asked = |stage: &Stage| stage.asks.iter().filter(|ask| matches!(ask, Ask::ReadOutput { .. })).count();
    assert_eq!(asked(&stage), 1);
    let refused = || Err(Problem::new(ErrorCode::NotCaughtUp, "try\u{1b}[2J again"));
    answer(&mut stage, OutputStream::Stdout, 0, refused());
    let screen = stage.screen();
    assert!(screen.contains("cannot be read: try\u{fffd}[2J again; ^R asks again"), "{screen}");
    stage.asks.clear();
    stage.keys("jk<pgdn>G");
    stage.wait(5_000);
    assert_eq!(asked(&stage), 0, "it asks on by itself");
    stage.keys("<c-r>");
    assert_eq!(asked(&stage), 1);
    // Nobody answers at all.
    stage.asks.clear();
    stage.wait(16_000);
    assert!(stage.screen().contains("no answer for 15 s"), "{}", stage.screen());
    stage.keys("<c-r>");
    serve(&mut stage, total);
    assert!(stage.screen().contains(&line(total / LINE - 1)), "{}", stage.screen());
}

#[rstest]
#[case(&[(7, 100, "late or made up")])]
#[case(&[(0, 0, "")])]
#[case(&[(0, u64::MAX, "x"), (1, u64::MAX, "")])]
#[case(&[(u64::MAX, u64::MAX, "x")])]
#[case(&[(u64::MAX - 1, u64::MAX, "xyz")])]
#[case(&[(5, 3, "abc")])]
#[case(&[(0, 100, "\u{80}"), (1, 7, ""), (1, 9_000_000, "abc")])]
fn a_hostile_bridge_leads_nowhere(#[case] answers: &[(u64, u64, &str)]) {
    let mut stage = stage_with(8 * MIB, 80, 24);
    let mut answers = answers.iter().cycle();
    for round in 0..300 {
        let asks = std::mem::take(&mut stage.asks);
        for ask in asks {
            if let Ask::ReadOutput { from, stream, .. } = ask {
                let (offset, total_bytes, data) = *answers.next().unwrap();
                let data = Bytes::copy_from_slice(data.as_bytes());
                let offset = if offset < 10 { from.saturating_add(offset) } else { offset };
                let range = OutputRange { offset, total_bytes, is_truncated: false, data };
                answer(&mut stage, stream, from, Ok(range));
            }
        }
        match round % 5 {
            0 => stage.keys("G"),
            1 => stage.keys("<pgup>"),
            2 => stage.keys("g"),
            3 => stage.keys("/x<enter>"),
            _ => stage.keys("%70<enter>&<c-r>"),
        }
        stage.screen();
    }
}

#[test]
fn a_running_output_that_outgrows_what_is_kept_is_read_once_it_has_ended() {
    let mut stage = running("");
    let chunk = "y\n".repeat(64 * 1024);
    for n in 0..12 {
        stage.output(3, 1, n * chunk.len() as u64, &chunk);
    }
    let screen = stage.screen();
    assert!(screen.contains("dropped") && stage.state.output.stored.is_none(), "{screen}");
    stage.asks.clear();
    let total = 12 * chunk.len() as u64;
    stage.tell(Told::Run { id: command_id(3), run: ended(1, total) });
    assert!(matches!(stage.asks.first(), Some(Ask::ReadOutput { from: 0, .. })), "{:?}", stage.asks);
    serve(&mut stage, total);
    assert!(!stage.screen().contains("dropped") && stage.screen().contains("stdout"), "{}", stage.screen());
}

#[test]
fn what_was_printed_on_stderr_alone_is_read() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("xseq<enter>");
    stage.accept(3, 1);
    let stderr = OutputView { bytes: 8 * MIB, ..OutputView::default() };
    stage.tell(Told::Run { id: command_id(3), run: RunView { stderr, ..run(1, RunState::Failed) } });
    stage.keys("o");
    serve(&mut stage, 8 * MIB);
    let screen = stage.screen();
    assert!(screen.contains("stderr") && screen.contains(" e line "), "{screen}");
}

#[test]
fn it_is_saved_to_a_file_that_was_not_there_and_can_be_stopped() {
    let mut stage = running("x\n");
    stage.keys("s");
    let name = command_id(3).to_string().split_off(28);
    assert!(stage.screen().contains(&format!("save to demo-1-{name}")), "{}", stage.screen());
    stage.keys("<c-u><enter>");
    assert!(stage.screen().contains("name a file"), "{}", stage.screen());
    stage.keys("log<enter>");
    let Some(Ask::Save(save)) = stage.asks.last().cloned() else { panic!("{:?}", stage.asks) };
    let paths: Vec<&str> = save.targets.iter().filter_map(|target| target.path.to_str()).collect();
    assert_eq!((paths, save.skips_empty, save.folder), (vec!["log.stdout", "log.stderr"], true, None));
    stage.tell(Told::Saving { tag: save.tag, bytes: 3 * MIB, of: 8 * MIB });
    assert!(stage.screen().contains("saving 3/8 MiB"), "{}", stage.screen());
    stage.keys("s");
    assert_eq!(stage.state.modal, None, "one at a time");
    stage.keys("<esc>");
    assert_eq!(stage.asks.last(), Some(&Ask::StopSave { tag: save.tag }));
    assert!(matches!(stage.state.screen, Screen::Output(..)));
    let stopped = Problem::new(ErrorCode::Invalid, "stopped; nothing was saved");
    stage.tell(Told::Refused { tag: save.tag, problem: stopped });
    assert!(stage.screen().contains("nothing was saved") && stage.state.saving.is_none());

    stage.keys("<tab>s<c-u>~/log<enter>");
    let Some(Ask::Save(save)) = stage.asks.last().cloned() else { panic!("{:?}", stage.asks) };
    assert_eq!(save.targets[0].path.to_str(), Some("~/log"), "one stream is one file, by its very name");
    stage.tell(Told::Saved { tag: save.tag, saved: Saved { files: 1, bytes: 2, missing: 7, absent: 0 } });
    assert!(stage.screen().contains("saved 2 B in 1 file, ~/log; 7 B are missing"), "{}", stage.screen());
}

#[test]
fn all_of_it_is_saved_in_a_folder_by_machine() {
    let mut stage = Stage::demo(80, 24);
    stage.keys("axid<enter>");
    stage.accept(3, 3);
    (1..=3).for_each(|machine| stage.run(3, machine, RunState::Executing));
    stage.screen();
    stage.keys("os<c-u>logs<enter>");
    let Some(Ask::Save(save)) = stage.asks.last() else { panic!("{:?}", stage.asks) };
    assert_eq!(save.folder.as_deref().and_then(|folder| folder.to_str()), Some("logs"));
    assert_eq!(save.targets.len(), 6);
    assert_eq!(save.targets[1].path.to_str(), Some("logs/demo-1.stderr"));
}

#[test]
fn everything_here_has_a_name() {
    let mut stage = running("one\n");
    stage.keys(":wrap<enter>:numbers<enter>");
    assert!(stage.state.output.look.wraps && stage.state.output.look.has_numbers);
    stage.keys(":search<enter>one<enter>");
    assert!(stage.screen().contains("1 of 1"), "{}", stage.screen());
    stage.keys(":audit<enter>");
    assert!(matches!(stage.state.screen, Screen::List(_)));
}
