//! Every way to log in, and what is said where none is taken.

use anyhow::{Context as _, Result};
use rstest::rstest;
use signalbox_relay::ssh::route::{Hop, Way};
use signalbox_schemas::{Secret, ssh::SshFault};
use signalbox_testkit::sshd::{Agent, PasswordUser, Sshd};

use crate::harness::{Room, hop, key, password};

fn with_passphrase(way: Way, text: &str) -> Way {
    match way {
        Way::Key { name, key, certificate, .. } => {
            Way::Key { name, key, passphrase: Some(Secret::new(text.into())), certificate }
        }
        other => other,
    }
}

fn with_certificate(sshd: &Sshd, way: Way, file: &str) -> Result<Way> {
    Ok(match way {
        Way::Key { name, key, passphrase, .. } => {
            Way::Key { name, key, passphrase, certificate: Some(sshd.text(file)?) }
        }
        other => other,
    })
}

async fn room_for(sshd: &Sshd) -> Result<Room> {
    let room = Room::open().await?;
    room.know(&sshd.known_as("host", sshd.port())?)?;
    Ok(room)
}

#[rstest]
#[case::ed25519(&["-t", "ed25519", "-N", ""], None)]
#[case::rsa(&["-t", "rsa", "-b", "2048", "-N", ""], None)]
#[case::p256(&["-t", "ecdsa", "-b", "256", "-N", ""], None)]
#[case::p384(&["-t", "ecdsa", "-b", "384", "-N", ""], None)]
#[case::p521(&["-t", "ecdsa", "-b", "521", "-N", ""], None)]
#[case::rsa_pem(&["-t", "rsa", "-b", "2048", "-N", "", "-m", "PEM"], None)]
#[case::rsa_pkcs8(&["-t", "rsa", "-b", "2048", "-N", "", "-m", "PKCS8"], None)]
#[case::p256_pkcs8(&["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PKCS8"], None)]
#[case::p256_pem(&["-t", "ecdsa", "-b", "256", "-N", "", "-m", "PEM"], None)]
#[case::ed25519_passphrase(&["-t", "ed25519", "-N", "a long one"], Some("a long one"))]
#[case::rsa_passphrase(&["-t", "rsa", "-b", "2048", "-N", "a long one"], Some("a long one"))]
#[case::rsa_pem_passphrase(&["-t", "rsa", "-b", "2048", "-N", "a long one", "-m", "PEM"], Some("a long one"))]
#[tokio::test]
async fn a_key_lets_in(#[case] args: &[&str], #[case] passphrase: Option<&str>) -> Result<()> {
    let sshd = Sshd::start().await?;
    sshd.keygen("mine", args)?;
    sshd.authorize_only("mine")?;
    let mut room = room_for(&sshd).await?;
    let way = key(&sshd, "mine")?;
    let way = passphrase.map_or(way.clone(), |text| with_passphrase(way, text));
    let route = room.route_by(vec![hop(&sshd, vec![way])]);
    assert_eq!(room.print(&route, "id -un").await?.trim(), sshd.user());
    Ok(())
}

#[tokio::test]
async fn a_wrong_passphrase_is_said_only_where_no_other_way_is_left() -> Result<()> {
    let sshd = Sshd::start().await?;
    sshd.keygen("locked", &["-t", "ed25519", "-N", "right"])?;
    let mut room = room_for(&sshd).await?;
    for wrong in [key(&sshd, "locked")?, with_passphrase(key(&sshd, "locked")?, "wrong")] {
        let route = room.route_by(vec![hop(&sshd, vec![wrong.clone()])]);
        let said = room.fails(&route, SshFault::KeyPassphrase).await?;
        assert!(said.contains("`locked`") && !said.contains("wrong"), "{said}");
        let route = room.route_by(vec![hop(&sshd, vec![wrong, key(&sshd, "user")?])]);
        assert_eq!(room.print(&route, "echo in").await?, "in\n");
    }
    Ok(())
}

#[rstest]
#[case::ed25519(&["-t", "ed25519", "-N", ""])]
#[case::rsa(&["-t", "rsa", "-b", "2048", "-N", ""])]
#[case::p256(&["-t", "ecdsa", "-b", "256", "-N", ""])]
#[tokio::test]
async fn a_certificate_lets_in(#[case] args: &[&str]) -> Result<()> {
    let sshd = Sshd::start().await?;
    sshd.keygen("mine", args)?;
    let ca = sshd.path("ca").display().to_string();
    let public = sshd.path("mine.pub").display().to_string();
    signalbox_testkit::sshd::run(std::process::Command::new("ssh-keygen").args([
        "-q",
        "-s",
        &ca,
        "-I",
        "me",
        "-n",
        sshd.user(),
        &public,
    ]))?;
    let mut room = room_for(&sshd).await?;
    let bare = room.route_by(vec![hop(&sshd, vec![key(&sshd, "mine")?])]);
    room.fails(&bare, SshFault::AuthFailed).await?;
    let way = with_certificate(&sshd, key(&sshd, "mine")?, "mine-cert.pub")?;
    let route = room.route_by(vec![hop(&sshd, vec![way])]);
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    Ok(())
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_costs_only_itself() -> Result<()> {
    let sshd = Sshd::start().await?;
    let mut room = room_for(&sshd).await?;
    sshd.keygen("stranger", &["-t", "ed25519", "-N", ""])?;
    for file in ["host.pub", "ca"] {
        let way = with_certificate(&sshd, key(&sshd, "user")?, file)?;
        let route = room.route_by(vec![hop(&sshd, vec![way])]);
        assert_eq!(room.print(&route, "echo in").await?, "in\n");
        let way = with_certificate(&sshd, key(&sshd, "stranger")?, file)?;
        let said = room.fails(&room.route_by(vec![hop(&sshd, vec![way])]), SshFault::AuthFailed).await?;
        assert!(said.contains("certificate of `stranger` (") && said.contains("key `stranger`"), "{said}");
    }
    Ok(())
}

/// Texts that are pasted have lines that end or begin with blanks, and a key of a stranger may ask for hours.
#[tokio::test]
async fn keys_are_read_as_the_vault_reads_them() -> Result<()> {
    let sshd = Sshd::start().await?;
    let mut room = room_for(&sshd).await?;
    let Way::Key { name, key, .. } = key(&sshd, "user")? else { anyhow::bail!("no key") };
    let text = format!("  {}", key.expose().replace('\n', " \r\n  "));
    let way = Way::Key { name, key: Secret::new(text), passphrase: None, certificate: None };
    assert_eq!(room.print(&room.route_by(vec![hop(&sshd, vec![way])]), "echo in").await?, "in\n");
    let costly = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys/ec_pkcs8_costly"));
    let key = Secret::new(costly.to_owned());
    let way = Way::Key { name: "costly".into(), key, passphrase: None, certificate: None };
    let way = with_passphrase(way, "hunter2");
    let said = room.fails(&room.route_by(vec![hop(&sshd, vec![way])]), SshFault::AuthFailed).await?;
    assert!(said.contains("more time or memory"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_key_that_is_none_is_no_matter_of_passphrases() -> Result<()> {
    let sshd = Sshd::start().await?;
    sshd.keygen("locked", &["-t", "ed25519", "-N", "right"])?;
    sshd.keygen("stranger", &["-t", "ed25519", "-N", ""])?;
    let mut room = room_for(&sshd).await?;
    let broken = Way::Key {
        name: "broken".into(),
        key: Secret::new("no key at all".to_owned()),
        passphrase: None,
        certificate: None,
    };
    for ways in [vec![broken.clone()], vec![broken.clone(), key(&sshd, "stranger")?]] {
        let said = room.fails(&room.route_by(vec![hop(&sshd, ways)]), SshFault::AuthFailed).await?;
        assert!(said.contains("`broken`") && said.contains("no private key begins in it"), "{said}");
        assert!(!said.contains("passphrase") && said.contains("a key that can be read"), "{said}");
    }
    let route = room.route_by(vec![hop(&sshd, vec![broken.clone(), key(&sshd, "locked")?])]);
    let said = room.fails(&route, SshFault::KeyPassphrase).await?;
    assert!(said.contains("`broken`") && said.contains("`locked`"), "{said}");
    let route = room.route_by(vec![hop(&sshd, vec![broken, key(&sshd, "user")?])]);
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    Ok(())
}

#[tokio::test]
async fn an_agent_lets_in() -> Result<()> {
    let sshd = Sshd::start().await?;
    let agent = Agent::with(&sshd.path("user")).await?;
    let mut room = room_for(&sshd).await?;
    let way = Way::Agent { socket: agent.socket().to_owned() };
    let route = room.route_by(vec![hop(&sshd, vec![way])]);
    assert_eq!(room.print(&route, "echo in").await?, "in\n");
    let gone = Way::Agent { socket: room.path("nowhere") };
    let route = room.route_by(vec![hop(&sshd, vec![gone])]);
    let said = room.fails(&route, SshFault::AuthFailed).await?;
    assert!(said.contains("nowhere"), "{said}");
    Ok(())
}

#[rstest]
#[case::password("PasswordAuthentication yes")]
#[case::interactive("KbdInteractiveAuthentication yes\nUsePAM yes")]
#[tokio::test]
async fn a_password_lets_in(#[case] line: &str) -> Result<()> {
    // Only root can make a user with a password.
    let Some(user) = PasswordUser::make().await? else { return Ok(()) };
    let sshd = Sshd::start_with(&[line]).await?;
    let mut room = room_for(&sshd).await?;
    let hop = |text: &str| Hop { user: user.name().into(), ..hop(&sshd, vec![password(text)]) };
    let route = room.route_by(vec![hop(user.password())]);
    assert_eq!(room.print(&route, "id -un").await?.trim(), user.name());
    let said = room.fails(&room.route_by(vec![hop("hunter2")]), SshFault::AuthFailed).await?;
    assert!(said.contains("`pw`") && !said.contains("hunter2"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_wants_key_and_password_gets_both() -> Result<()> {
    let Some(user) = PasswordUser::make().await? else { return Ok(()) };
    let sshd =
        Sshd::start_with(&["PasswordAuthentication yes", "AuthenticationMethods publickey,password"]).await?;
    let mut room = room_for(&sshd).await?;
    let (word, key) = (password(user.password()), key(&sshd, "user")?);
    for ways in [vec![key.clone(), word.clone()], vec![word, key.clone()]] {
        let route = room.route_by(vec![Hop { user: user.name().into(), ..hop(&sshd, ways) }]);
        assert_eq!(room.print(&route, "echo in").await?, "in\n");
    }
    let route = room.route_by(vec![Hop { user: user.name().into(), ..hop(&sshd, vec![key]) }]);
    let said = room.fails(&route, SshFault::AuthFailed).await?;
    assert!(said.contains("not enough") && said.contains("it offers password"), "{said}");
    Ok(())
}

#[tokio::test]
async fn who_is_not_let_in_hears_what_was_tried_and_what_is_offered() -> Result<()> {
    let sshd = Sshd::start().await?;
    sshd.keygen("stranger", &["-t", "ed25519", "-N", ""])?;
    let mut room = room_for(&sshd).await?;
    let route = room.route_by(vec![hop(&sshd, vec![key(&sshd, "stranger")?, password("hunter2")])]);
    let said = room.fails(&route, SshFault::AuthFailed).await?;
    let expected = ["key `stranger`", "it offers publickey", &format!("`{}`", sshd.user())];
    assert!(expected.iter().all(|part| said.contains(part)), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_host_is_reached_through_others() -> Result<()> {
    let (first, second, third) = (Sshd::start().await?, Sshd::start().await?, Sshd::start().await?);
    let mut room = Room::open().await?;
    for sshd in [&first, &second, &third] {
        room.know(&sshd.known_as("host", sshd.port())?)?;
    }
    let hops: Result<Vec<_>> =
        [&first, &second, &third].into_iter().map(|sshd| Ok(hop(sshd, vec![key(sshd, "user")?]))).collect();
    let mut route = room.route_by(hops?);
    let port = room.print(&route, "echo $SSH_CONNECTION").await?;
    assert_eq!(port.split_whitespace().last().context("no port")?, third.port().to_string());
    assert_eq!(first.commands()? + second.commands()?, 0);
    route.hops[2].port = 1;
    let said = room.fails(&route, SshFault::Unreachable).await?;
    assert!(said.contains("127.0.0.1:1"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_host_that_forwards_nothing_is_no_way() -> Result<()> {
    let (first, second) = (Sshd::start_with(&["AllowTcpForwarding no"]).await?, Sshd::start().await?);
    let mut room = Room::open().await?;
    let before = room.route(&first)?.hops;
    let route = room.route(&second)?;
    let route = room.route_by([before, route.hops].concat());
    let said = room.fails(&route, SshFault::ChannelRefused).await?;
    assert!(said.contains("AllowTcpForwarding"), "{said}");
    Ok(())
}
