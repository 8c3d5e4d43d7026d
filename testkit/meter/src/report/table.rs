//! A report as a table: for a terminal, or in Markdown.

use std::fmt::Write as _;

use super::{At, Budget, Report, Row, Unit};

/// Who reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// Columns of equal width.
    Terminal,
    /// Columns between bars.
    Markdown,
}

const HEAD: [&str; 7] = ["what", "n", "p50", "p90", "p99", "ratio", "budget"];

/// The rows of a report.
pub(crate) fn table(report: &Report, style: Style) -> String {
    let rows: Vec<[String; 7]> = report.rows.iter().map(|row| cells(row, style)).collect();
    match style {
        Style::Markdown => markdown(&rows),
        Style::Terminal => terminal(&rows),
    }
}

fn markdown(rows: &[[String; 7]]) -> String {
    let mut text = format!("| {} |\n|---|---:|---:|---:|---|---|\n", HEAD.join(" | "));
    for row in rows {
        let _in_memory = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

fn terminal(rows: &[[String; 7]]) -> String {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<usize> = (0..HEAD.len())
        .map(|at| all().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in all() {
        let mut line = String::new();
        for (at, (cell, width)) in row.iter().zip(&widths).enumerate() {
            // Text stands left, numbers right.
            let is_text = at == 0 || at >= HEAD.len() - 2;
            let pad = " ".repeat(width - cell.chars().count());
            let parts = if is_text { [cell.as_str(), &pad] } else { [pad.as_str(), cell] };
            line.extend(parts.into_iter().chain(["  "]));
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn cells(row: &Row, style: Style) -> [String; 7] {
    let value = |value: Option<f64>| value.map(|value| number(value, row.unit)).unwrap_or_default();
    let ratio = row.ratio.zip(row.floor.as_deref());
    let ratio = ratio.map(|(ratio, floor)| format!("{ratio:.2} × {}", short(floor))).unwrap_or_default();
    let mut last: Vec<String> = row.budgets.iter().map(|of| budget(of, row.unit, style)).collect();
    last.extend(row.remark.clone());
    let [what, ratio, last] = [row.what.clone(), ratio, last.join("; ")].map(|text| match style {
        Style::Markdown => text.replace('|', "\\|"),
        Style::Terminal => text,
    });
    [what, row.n.to_string(), value(row.p50), value(row.p90), value(row.p99), ratio, last]
}

/// A floor's name without what it is, and without what is said of it.
fn short(name: &str) -> &str {
    let name = ["floor: ", "peer: "].iter().find_map(|kind| Some(name.split_once(kind)?.1)).unwrap_or(name);
    name.split([',', ':', '(']).next().unwrap_or(name).trim()
}

/// A budget in words.
pub(super) fn budget(budget: &Budget, unit: Unit, style: Style) -> String {
    let word = match (budget.met, style) {
        (true, _) => "met",
        (false, Style::Markdown) => "**missed**",
        (false, Style::Terminal) => "MISSED",
    };
    let at = if budget.at == At::P99 { "p99 " } else { "" };
    let sign = if budget.at_least { "≥" } else { "≤" };
    let limit = number(budget.limit, unit);
    // A rule that is its own number is not said twice.
    let rule = if budget.says == limit { String::new() } else { format!(" ({})", budget.says) };
    format!("{at}{sign} {limit}{rule}: {word}")
}

/// A number with its unit, as many digits as are worth reading.
pub(crate) fn number(value: f64, unit: Unit) -> String {
    match unit {
        Unit::Ms if value < 10.0 => format!("{value:.2} ms"),
        Unit::Ms if value < 100.0 => format!("{value:.1} ms"),
        Unit::Ms => format!("{} ms", grouped(value)),
        Unit::Kib if value.abs() < 100.0 => format!("{value:.1} KiB"),
        Unit::Kib => format!("{} KiB", grouped(value)),
        Unit::Percent => format!("{value:.2} %"),
        Unit::PerSecond => format!("{} /s", grouped(value)),
        Unit::BytesPerSecond => format!("{} B/s", grouped(value)),
        Unit::Bytes => format!("{} B", grouped(value)),
        Unit::Count => grouped(value),
    }
}

/// A whole number with commas.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut text = sign.to_owned();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{super::tests::report, *};
    use crate::report::Samples;

    #[rstest]
    #[case(0.425, Unit::Ms, "0.42 ms")]
    #[case(12.34, Unit::Ms, "12.3 ms")]
    #[case(1234.5, Unit::Ms, "1,234 ms")]
    #[case(1_234_567.0, Unit::Bytes, "1,234,567 B")]
    #[case(999.0, Unit::Count, "999")]
    #[case(-1000.0, Unit::Kib, "-1,000 KiB")]
    #[case(49.14, Unit::Kib, "49.1 KiB")]
    #[case(0.067, Unit::Percent, "0.07 %")]
    fn numbers_are_short(#[case] value: f64, #[case] unit: Unit, #[case] expected: &str) {
        assert_eq!(number(value, unit), expected);
    }

    #[rstest]
    #[case("floor: NATS, through the broker", "NATS")]
    #[case("64 clients: floor: acknowledgements", "acknowledgements")]
    #[case("chain without a process: submit to exit", "chain without a process")]
    fn floors_are_named_shortly(#[case] name: &str, #[case] expected: &str) {
        assert_eq!(short(name), expected);
    }

    fn told() -> Report {
        let mut report = report();
        let mut samples = Samples::ms();
        samples.add(2.0);
        report.add(Row::new("floor: a|b", &samples));
        samples.add(30.0);
        let row = Row::new("chain", &samples).over("floor: a|b");
        let row = row.within(Budget::most(3.0, "floor + 1 ms")).within(Budget::most(20.0, "20.0 ms").p99());
        report.add(row.remark("by day"));
        report
    }

    #[test]
    fn markdown_has_a_cell_per_column() {
        assert_eq!(
            table(&told(), Style::Markdown),
            "| what | n | p50 | p90 | p99 | ratio | budget |\n|---|---:|---:|---:|---|---|\n\
             | floor: a\\|b | 1 | 2.00 ms | 2.00 ms | 2.00 ms |  |  |\n\
             | chain | 2 | 2.00 ms | 30.0 ms | 30.0 ms | 1.00 × a\\|b | ≤ 3.00 ms (floor + 1 ms): met; \
             p99 ≤ 20.0 ms: **missed**; by day |\n"
        );
    }

    #[test]
    fn on_a_terminal_columns_stand_under_each_other() {
        let text = table(&told(), Style::Terminal);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[2].ends_with("p99 ≤ 20.0 ms: MISSED; by day"), "{text}");
        let end = |line: &str, word: &str| line.find(word).map(|at| line[..at].chars().count() + word.len());
        assert_eq!(end(lines[0], "p50"), end(lines[1], "2.00 ms"), "{text}");
    }
}
