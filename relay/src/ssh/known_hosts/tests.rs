use super::*;
use rstest::rstest;

/// Two keys, as `ssh-keygen` makes them.
const FIRST: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const SECOND: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

fn blob(key: &str) -> Vec<u8> {
    Line::parse(1, format!("x {key}").as_bytes()).unwrap().key
}

fn look_up(text: &str, name: &str) -> Verdict {
    Lines::parse(text.as_bytes()).unwrap().look_up(name, &blob(FIRST))
}

#[rstest]
#[case("web-1 FIRST", "web-1", true)]
#[case("web-1 FIRST a comment of several words", "web-1", true)]
#[case("WEB-1,10.0.0.7 FIRST", "web-1", true)]
#[case("WEB-1,10.0.0.7 FIRST", "10.0.0.7", true)]
#[case("web-1 FIRST", "web-10", false)]
#[case("web-1 FIRST", "[web-1]:2222", false)]
#[case("[web-1]:2222 FIRST", "[web-1]:2222", true)]
#[case("[web-1]:2222 FIRST", "web-1", false)]
#[case("*.lan FIRST", "a.b.lan", true)]
#[case("*.lan,!b.lan FIRST", "a.lan", true)]
#[case("*.lan,!b.lan FIRST", "b.lan", false)]
#[case("!b.lan,* FIRST", "b.lan", false)]
#[case("[*.lan]:22?? FIRST", "[a.lan]:2222", true)]
#[case("  web-1\tFIRST\r", "web-1", true)]
#[case("# web-1 FIRST", "web-1", false)]
#[case("#web-1 FIRST", "web-1", false)]
#[case("@unknown web-1 FIRST", "web-1", false)]
#[case("@cert-authority web-1 FIRST", "web-1", false)]
#[case("web-1 FIRST", "", false)]
#[case("web-1,,web-2, FIRST", "web-2", true)]
#[case("web-1,,web-2, FIRST", "", false)]
#[case("2001:DB8:0::7 FIRST", "2001:db8::7", true)]
#[case("[2001:DB8:0::7]:2222,a FIRST", "[2001:db8::7]:2222", true)]
#[case("::ffff:10.0.0.7 FIRST", "10.0.0.7", true)]
#[case("*,!2001:DB8:0::7 FIRST", "2001:db8::7", false)]
#[case("Web-1. FIRST", "web-1", true)]
fn lines_mean_hosts(#[case] text: &str, #[case] name: &str, #[case] is_known: bool) {
    let verdict = look_up(&text.replace("FIRST", FIRST), name);
    assert_eq!(verdict, if is_known { Verdict::Known } else { Verdict::Unknown });
}

#[test]
fn a_hashed_name_is_found_again() {
    let salt = [7; HASH_BYTES];
    let text = format!("{} {FIRST}\n", hashed("[web-1]:2222", &salt));
    assert_eq!(look_up(&text, "[web-1]:2222"), Verdict::Known);
    assert_eq!(look_up(&text, "web-1"), Verdict::Unknown);
    let of_openssh = format!("|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {FIRST}\n");
    assert_eq!(look_up(&of_openssh, "192.168.1.61"), Verdict::Known);
}

#[test]
fn another_key_has_changed_and_says_where_it_stands() {
    let text = format!("# known\nweb-1 {SECOND}\n*.lan {SECOND}\n");
    let Verdict::Changed(places) = look_up(&text, "web-1") else { panic!("not changed") };
    assert_eq!(places.len(), 1);
    assert_eq!((places[0].line, places[0].key_type.as_str()), (2, "ssh-ed25519"));
    assert_eq!(places[0].fingerprint, fingerprint(&blob(SECOND)));
    let both = format!("{text}web-1 {FIRST}\n");
    assert_eq!(look_up(&both, "web-1"), Verdict::Known);
}

/// OpenSSH heeds such lines: who left them out would believe a key that was revoked.
#[test]
fn bytes_that_are_no_text_take_nothing_from_a_line() {
    let read = |before: &[u8], after: &[u8]| {
        let text = [before, FIRST.as_bytes(), after].concat();
        Lines::parse(&text).unwrap().look_up("web-1", &blob(FIRST))
    };
    assert_eq!(read(b"web-1 ", b" M\xfcller"), Verdict::Known);
    assert!(matches!(read(b"@revoked * ", b" M\xfcller"), Verdict::Revoked(_)));
    assert_eq!(read(b"w\xfcb,web-1 ", b""), Verdict::Known);
    assert_eq!(read(b"w\xfcb ", b""), Verdict::Unknown);
}

#[test]
fn what_was_revoked_is_not_known_wherever_that_stands() {
    let text = format!("web-1 {FIRST}\n@revoked * {FIRST}\n");
    assert!(matches!(look_up(&text, "web-1"), Verdict::Revoked(Place { line: 2, .. })));
    let others = format!("web-1 {FIRST}\n@revoked * {SECOND}\n");
    assert_eq!(look_up(&others, "web-1"), Verdict::Known);
}

#[rstest]
#[case("web-1")]
#[case("web-1 ssh-ed25519")]
#[case("web-1 ssh-ed25519 AAAA")]
#[case("web-1 ssh-ed25519 !!!!")]
#[case("web-1 ssh-rsa AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ")]
#[case("|1|AAAA|AAAA ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ")]
#[case("|2|a|b ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ")]
#[case(", ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ")]
fn lines_that_are_none_say_nothing(#[case] text: &str) {
    assert_eq!(Line::parse(1, text.as_bytes()), None);
}

#[test]
fn sizes_are_bounded() {
    let long = "x".repeat(LINE_BYTES + 1);
    assert_eq!(Lines::parse(format!("a\n{long}").as_bytes()), Err(TooLarge::Line(2)));
    assert_eq!(Lines::parse(&vec![b'\n'; FILE_BYTES + 1]), Err(TooLarge::File));
    assert!(Lines::parse(&vec![b'\n'; FILE_BYTES]).is_ok());
}

#[rstest]
#[case("web-1", Some(("web-1", 22)))]
#[case("Web-1.", Some(("web-1", 22)))]
#[case("web-1:2222", Some(("web-1", 2222)))]
#[case("[web-1]:2222", Some(("web-1", 2222)))]
#[case("[web-1]", Some(("web-1", 22)))]
#[case("fe80::1", Some(("fe80::1", 22)))]
#[case("[fe80::1]:22", Some(("fe80::1", 22)))]
#[case("web-1:", None)]
#[case("web-1:0", None)]
#[case("[web-1]2222", None)]
#[case("*.lan", None)]
#[case("", None)]
fn hosts_are_read(#[case] text: &str, #[case] read: Option<(&str, u16)>) {
    assert_eq!(host_and_port(text), read.map(|(host, port)| (host.to_owned(), port)));
}
