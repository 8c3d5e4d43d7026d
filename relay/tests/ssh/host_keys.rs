//! Whether a host is who it is said to be, and whether it may be dialled.

use std::fs;

use anyhow::Result;
use rstest::rstest;
use signalbox_relay::ssh::{
    known_hosts::{file::KnownHosts, hashed},
    route::HostKeyPolicy,
};
use signalbox_schemas::{output::OutputStream::Stdout, ssh::SshFault};
use signalbox_testkit::sshd::{FailingPeer, Sshd, Then};

use crate::harness::{Room, hop, hop_at, key};

#[tokio::test]
async fn a_host_that_is_not_known_is_refused_and_says_what_to_do() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "user")?])]);
    let said = room.fails(&route, SshFault::HostKeyUnknown).await?;
    assert!(
        said.contains("SHA256:") && said.contains("signalbox-relay known-hosts scan [127.0.0.1]:"),
        "{said}"
    );
    assert!(!room.path("known_hosts").exists(), "it was written down");
    assert_eq!(sshd.commands()?, 0);
    Ok(())
}

#[tokio::test]
async fn a_host_that_shows_another_key_is_refused_whatever_the_policy() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    room.know("# a comment")?;
    room.know(&sshd.known_as("ca", sshd.port())?)?;
    let mut route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "user")?])]);
    let before = fs::read_to_string(room.path("known_hosts"))?;
    for policy in [HostKeyPolicy::Strict, HostKeyPolicy::AcceptNew] {
        route.host_keys = policy;
        let said = room.fails(&route, SshFault::HostKeyChanged).await?;
        assert!(said.contains("(line 2)") && said.contains("signalbox-relay known-hosts remove ["), "{said}");
        assert_eq!(said.matches("SHA256:").count(), 2, "{said}");
    }
    assert_eq!(fs::read_to_string(room.path("known_hosts"))?, before);
    Ok(())
}

#[tokio::test]
async fn a_new_host_is_accepted_once_where_that_is_the_policy() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let mut route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "user")?])]);
    route.host_keys = HostKeyPolicy::AcceptNew;
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    let written = fs::read_to_string(room.path("known_hosts"))?;
    assert!(written.starts_with("|1|") && written.lines().count() == 1, "{written}");
    route.host_keys = HostKeyPolicy::Strict;
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    assert_eq!(fs::read_to_string(room.path("known_hosts"))?, written);
    Ok(())
}

#[tokio::test]
async fn a_hashed_host_is_known_and_a_revoked_key_never() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let line = sshd.known_as("host", sshd.port())?;
    let (name, rest) = line.split_once(' ').unwrap();
    room.know(&format!("{} {rest}", hashed(name, &[3; 20])))?;
    let route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "user")?])]);
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    room.know(&format!("@revoked * {rest}"))?;
    let mut accepting = route.clone();
    accepting.host_keys = HostKeyPolicy::AcceptNew;
    for route in [route, accepting] {
        let said = room.fails(&route, SshFault::HostKeyChanged).await?;
        assert!(said.contains("revoked") && said.contains("line 2"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn a_host_that_is_known_no_more_is_given_no_more_commands_and_ends_those_it_has() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let (route, fifo) = (room.route(&sshd)?, sshd.path("fifo"));
    let run = room.start_of(&route, &format!("mkfifo {0}; echo begun; cat {0}", fifo.display()));
    let busy = room.start(run).await?;
    room.status_when(|status| status.cid == busy && status.stdout.kept == 6).await?;
    let known = KnownHosts::at(&room.path("known_hosts"));
    assert_eq!(known.remove_hosts(&[format!("127.0.0.1:{}", sshd.port())])?, 1);
    room.fails(&route, SshFault::HostKeyUnknown).await?;
    fs::write(&fifo, "went on\n")?;
    let status = room.end_of(busy).await?;
    assert_eq!(room.text(&status, Stdout)?, "begun\nwent on\n");
    Ok(())
}

#[tokio::test]
async fn what_is_learnt_of_other_hosts_costs_no_connection() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let way = FailingPeer::carrying(sshd.port(), u64::MAX, Then::Closes).await?;
    let mut route = room.route_by(vec![hop_at(&sshd, way.port(), vec![key(&sshd, "user")?])]);
    route.host_keys = HostKeyPolicy::AcceptNew;
    for port in 1..=5 {
        assert_eq!(room.print(&route, "echo in").await?, "in\n");
        room.know(&sshd.known_as("ca", port)?)?;
    }
    assert_eq!(way.accepted(), 1);
    Ok(())
}

#[tokio::test]
async fn the_kind_of_key_that_is_known_is_asked_for() -> Result<()> {
    let sshd = Sshd::start_with(&["HostKey DIR/host", "HostKey DIR/ca"]).await;
    // A server refuses two keys of one kind: an RSA key is made beside it.
    drop(sshd);
    let first = Sshd::start().await?;
    first.keygen("rsa", &["-t", "rsa", "-b", "2048", "-N", ""])?;
    let line = format!("HostKey {}", first.path("rsa").display());
    let sshd = Sshd::start_with(&[&line]).await?;
    let mut room = Room::open().await?;
    room.know(&first.known_as("rsa", sshd.port())?)?;
    let route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "user")?])]);
    assert_eq!(room.print(&route, "echo in").await?, "in\n", "it has an ed25519 key too, which is not known");
    Ok(())
}

#[rstest]
#[case::signed("127.0.0.1", "+1d", true)]
#[case::for_another("db-1", "+1d", false)]
#[case::expired("127.0.0.1", "20200101:20200102", false)]
#[tokio::test]
async fn a_host_shows_a_certificate(
    #[case] name: &str,
    #[case] valid: &str,
    #[case] is_known: bool,
) -> Result<()> {
    let first = Sshd::start().await?;
    let (ca, public) = (first.path("ca").display().to_string(), first.path("host.pub").display().to_string());
    let args = ["-q", "-h", "-s", &ca, "-I", "host", "-n", name, "-V", valid, &public];
    signalbox_testkit::sshd::run(std::process::Command::new("ssh-keygen").args(args))?;
    let (host, certificate) = (first.path("host"), first.path("host-cert.pub"));
    let lines = [format!("HostKey {}", host.display()), format!("HostCertificate {}", certificate.display())];
    let sshd = Sshd::start_with(&[&lines[0], &lines[1]]).await?;
    let mut room = Room::open().await?;
    room.know(&format!("@cert-authority {}", first.known_as("ca", sshd.port())?))?;
    let route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "user")?])]);
    if is_known {
        assert_eq!(room.print(&route, "echo in").await?, "in\n");
    } else {
        let said = room.fails(&route, SshFault::HostKeyUnknown).await?;
        assert!(said.contains("its certificate"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn known_hosts_that_cannot_be_read_let_nobody_in() -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let route = room.route(&sshd)?;
    room.know(&"x".repeat(9000))?;
    let said = room.fails(&route, SshFault::HostKeyUnknown).await?;
    assert!(said.contains("line 2 has more than 8 KiB"), "{said}");
    Ok(())
}

#[rstest]
#[case::by_default(None, "127.0.0.1", false)]
#[case::a_name_that_leads_here(None, "localhost", false)]
#[case::a_glob(Some("*"), "localhost", false)]
#[case::the_name(Some("localhost"), "localhost", false)]
#[case::the_address(Some("127.0.0.1"), "localhost", true)]
#[case::its_network(Some("127.0.0.0/8"), "localhost", true)]
#[case::another(Some("10.0.0.0/8"), "127.0.0.1", false)]
#[tokio::test]
async fn only_targets_are_dialled(
    #[case] targets: Option<&str>,
    #[case] host: &str,
    #[case] is_dialled: bool,
) -> Result<()> {
    let (mut room, sshd) = (Room::open().await?, Sshd::start().await?);
    let mut route = room.route(&sshd)?;
    let line = sshd.known_as("host", sshd.port())?.replace("127.0.0.1", "localhost");
    KnownHosts::at(&room.path("known_hosts")).add_lines(&[line])?;
    route.targets = targets.map(|text| vec![text.parse().unwrap()]);
    route.hops[0].host = host.into();
    if is_dialled {
        assert_eq!(room.print(&route, "echo in").await?, "in\n");
    } else {
        let said = room.fails(&route, SshFault::TargetDenied).await?;
        assert!(said.contains("relay.toml"), "{said}");
        assert_eq!(sshd.connections()?, 0, "it was dialled");
    }
    Ok(())
}
