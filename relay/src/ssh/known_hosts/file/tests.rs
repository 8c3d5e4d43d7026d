use super::*;
use rstest::rstest;

const FIRST: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
const SECOND: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA6rWI3G1sz07DnfFlrouTcysQlj2P+jpNSOEWD9OJ3X";

struct Room {
    _folder: tempfile::TempDir,
    file: KnownHosts,
}

impl Room {
    fn with(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = KnownHosts::at(&folder.path().join("known_hosts"));
        if !text.is_empty() {
            fs::write(&file.path, text).unwrap();
        }
        Self { _folder: folder, file }
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.file.path).unwrap_or_default()
    }

    fn add(&self, line: &str) -> usize {
        self.file.add_lines(&[line.to_owned()]).unwrap()
    }

    fn remove(&self, host: &str) -> usize {
        self.file.remove_hosts(&[host.to_owned()]).unwrap()
    }
}

#[test]
fn a_line_is_added_once_behind_what_is_there() {
    let room = Room::with("# mine, without an end");
    let line = format!("web-1 {FIRST} comment");
    assert_eq!((room.add(&line), room.add(&line)), (1, 0));
    assert_eq!(room.text(), format!("# mine, without an end\n{line}\n"));
}

#[test]
fn a_file_that_was_made_is_for_its_user_alone_and_one_that_was_there_keeps_its_mode() {
    let room = Room::with("");
    room.add(&format!("web-1 {FIRST}"));
    let mode = |room: &Room| fs::metadata(&room.file.path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&room), 0o600);
    fs::set_permissions(&room.file.path, fs::Permissions::from_mode(0o644)).unwrap();
    room.add(&format!("web-2 {FIRST}"));
    assert_eq!(mode(&room), 0o644);
}

#[test]
fn a_link_stays_one() {
    let room = Room::with(&format!("web-1 {FIRST}\n"));
    let link = KnownHosts::at(&room.file.path.with_file_name("link"));
    std::os::unix::fs::symlink(&room.file.path, &link.path).unwrap();
    assert_eq!(link.add_lines(&[format!("web-2 {FIRST}")]).unwrap(), 1);
    assert!(fs::symlink_metadata(&link.path).unwrap().is_symlink());
    assert_eq!(room.text().lines().count(), 2);
}

#[rstest]
#[case("web-1")]
#[case("web-1 ssh-ed25519 AAAA")]
#[case("web-1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU")]
#[case("# comment")]
#[case("")]
fn nothing_is_added_that_is_no_key(#[case] line: &str) {
    let room = Room::with("");
    let lines = [format!("web-1 {FIRST}"), line.to_owned()];
    assert!(matches!(room.file.add_lines(&lines), Err(KnownHostsError::Line { .. })));
    assert_eq!(room.text(), "", "half of it was added");
}

#[test]
fn what_is_known_of_a_host_is_forgotten_and_nothing_else() {
    let text = format!(
        "# kept\nweb-1 {FIRST}\nweb-1,web-2 {SECOND} c\n*.lan,web-1 {FIRST}\n@revoked web-1 {FIRST}\n\
         @cert-authority web-1 {FIRST}\nweb-* {FIRST}\n{} {FIRST}\n{} {FIRST}\nrubbish\n[web-1]:2222 {FIRST}\n",
        hashed("web-1", &[1; HASH_BYTES]),
        hashed("web-2", &[1; HASH_BYTES])
    );
    let room = Room::with(&text);
    assert_eq!(room.remove("Web-1"), 5);
    let left = format!(
        "# kept\nweb-2 {SECOND} c\n*.lan {FIRST}\n@revoked web-1 {FIRST}\nweb-* {FIRST}\n{} {FIRST}\nrubbish\n\
         [web-1]:2222 {FIRST}\n",
        hashed("web-2", &[1; HASH_BYTES])
    );
    assert_eq!(room.text(), left);
    assert_eq!((room.remove("web-1"), room.remove("web-1:2222"), room.remove("web-2")), (0, 1, 2));
    assert!(matches!(room.file.remove_hosts(&["*".to_owned()]), Err(KnownHostsError::Host { .. })));
}

#[test]
fn what_is_forgotten_leaves_odd_bytes_and_spellings_beside_it() {
    let room = Room::with("x");
    let line = |hosts: &[u8]| [hosts, b" ", FIRST.as_bytes(), b" M\xfcller\n"].concat();
    fs::write(&room.file.path, [line(b"web-1,w\xfcb,,a"), line(b"FE80:0::1,b"), line(b"fe80::1")].concat())
        .unwrap();
    assert_eq!((room.remove("web-1"), room.remove("fe80::1")), (1, 2));
    assert_eq!(fs::read(&room.file.path).unwrap(), [line(b"w\xfcb,,a"), line(b"b")].concat());
}

#[test]
fn a_change_replaces_keys_in_one_step() {
    let room = Room::with(&format!("web-1 {FIRST}\n"));
    let changed = room.file.change(&["web-1".into()], &[format!("web-1 {SECOND}")]).unwrap();
    assert_eq!(changed, Changed { added: 1, removed: 1 });
    assert_eq!(room.text(), format!("web-1 {SECOND}\n"));
}

fn key(text: &str) -> PublicKey {
    PublicKey::from_openssh(text).unwrap()
}

#[test]
fn a_new_key_is_learnt_hashed_and_a_known_one_never_replaced() {
    let room = Room::with("");
    assert_eq!(room.file.learn("Web-1", 2222, &key(FIRST)).unwrap(), Verdict::Known);
    assert!(room.text().starts_with("|1|") && !room.text().contains("web"), "{}", room.text());
    let before = room.text();
    assert_eq!(room.file.learn("web-1", 2222, &key(FIRST)).unwrap(), Verdict::Known);
    assert!(matches!(room.file.learn("web-1", 2222, &key(SECOND)).unwrap(), Verdict::Changed(_)));
    assert_eq!(room.text(), before);
    assert_eq!(room.file.learn("web-1", 22, &key(SECOND)).unwrap(), Verdict::Known);
    assert_eq!(room.text().lines().count(), 2);
}

#[test]
fn what_many_learn_at_once_is_all_there() {
    let room = Room::with("");
    std::thread::scope(|scope| {
        for number in 0..20 {
            let file = room.file.clone();
            scope.spawn(move || file.learn(&format!("web-{number}"), 22, &key(FIRST)).unwrap());
        }
    });
    let lines = room.file.read().unwrap();
    let blob = key(FIRST).to_bytes().unwrap();
    for number in 0..20 {
        assert_eq!(lines.look_up(&format!("web-{number}"), &blob), Verdict::Known, "web-{number}");
    }
}

#[test]
fn a_file_that_cannot_be_written_stays_what_it_was() {
    let room = Room::with(&format!("web-1 {FIRST}\n"));
    fs::create_dir(room.file.path.with_added_extension("new")).unwrap();
    assert!(matches!(room.file.add_lines(&[format!("web-2 {FIRST}")]), Err(KnownHostsError::File { .. })));
    assert_eq!(room.text(), format!("web-1 {FIRST}\n"));
}
