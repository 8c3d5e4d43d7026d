//! A small world in which everything is right, made of signed messages, and tools to spoil it.

use std::collections::BTreeMap;

use signalbox_schemas::{
    Base64Url,
    api::{Cancel, Request, op},
    authors::{Author, Authors, Right, Role},
    command::{CommandSpec, Grant, Part as Grants},
    id::{CommandId, MachineId, MachineToken, Nonce, Sha256, Workspace},
    label::GivenLabels,
    output::OutputStream,
    record::{DoneCommand, DoneRun, MachineRecord, RelayKeys, StoredFact},
    rollout::Progress,
    run::{
        Claim, Exit, ExitState, InlineOutput, Lost, LostReason, StreamSummary, WithdrawReason, Withdrawal,
    },
    signed::{Message, Signed, SigningKey},
    subject::{CommandPiece, FactKind, Subject},
};

use crate::{
    check::Ledger,
    fault::{Fault, Part},
    observed::{Chunk, Head, Stored},
    plan::{Harm, Plan, Work},
    script,
    told::{Piece, SlowRead, Told, Word},
};

/// When it begins, Unix ms.
pub(super) const BEGIN: u64 = 1_750_000_000_000;
pub(super) const BOOTED: u64 = BEGIN - 1_000_000;
pub(super) const HEALED: u64 = BEGIN + 30_000;
const TIMEOUT_MS: u64 = 10_000;

pub(super) struct Keys {
    pub(super) fleet: SigningKey,
    pub(super) bridge: SigningKey,
    pub(super) operator: SigningKey,
    pub(super) machines: [SigningKey; 2],
}

pub(super) struct Bench {
    pub(super) keys: Keys,
    pub(super) plan: Plan,
    pub(super) stored: Vec<Stored>,
    pub(super) chunks: Vec<Chunk>,
    pub(super) marks: [String; 2],
    pub(super) told: Vec<Told>,
    pub(super) slow: Vec<SlowRead>,
    sequence: u64,
}

fn key() -> SigningKey {
    SigningKey::from_seed(&nkeys::KeyPair::new_user().seed().unwrap()).unwrap()
}

pub(super) fn ws() -> Workspace {
    Workspace::main()
}

pub(super) fn cid(n: u8) -> CommandId {
    format!("0193a2b4-0000-7000-8000-0000000000{n:02}").parse().unwrap()
}

pub(super) fn mid(n: usize) -> MachineToken {
    MachineToken::new(format!("m{n}")).unwrap()
}

pub(super) fn nonce(machine: usize) -> Nonce {
    Nonce([u8::try_from(machine).unwrap() + 1; 16])
}

pub(super) fn blank_exit(n: u8, m: usize, work: &Work) -> Exit {
    let bytes = script::output_bytes(work);
    let output = script::output(work, 0, bytes);
    let stdout = StreamSummary { bytes, sha256: Sha256::of(&output), truncated: false };
    Exit {
        ws: ws(),
        mid: mid(m),
        cid: cid(n),
        nonce: nonce(m),
        state: ExitState::Completed,
        exit_code: Some(0),
        signal: None,
        error: None,
        started_at: BEGIN,
        duration_ms: 100,
        group_dead: true,
        stdout,
        stderr: StreamSummary::empty(),
        chunks: 0,
        inline: None,
        via: None,
    }
}

impl Bench {
    fn empty() -> Self {
        let keys = Keys { fleet: key(), bridge: key(), operator: key(), machines: [key(), key()] };
        let harm = |part| Harm { at_ms: 1_000, for_ms: 500, fault: Fault::Kill(part) };
        let plan = Plan {
            seed: 1,
            brokers: 1,
            bridges: 1,
            machines: 2,
            length_ms: 20_000,
            harms: vec![harm(Part::Keeper(0)), harm(Part::Relay(1))],
            ..Plan::default()
        };
        let mut bench = Self {
            keys,
            plan,
            stored: vec![],
            chunks: vec![],
            marks: Default::default(),
            told: vec![],
            slow: vec![],
            sequence: 0,
        };
        bench.people();
        bench
    }

    /// Everything that may happen, done right.
    pub(super) fn good() -> Self {
        let mut bench = Self::empty();
        bench.whole_run(1, &Work::Nothing, &[0, 1]);
        bench.whole_run(2, &Work::Lines(3, 0), &[0]);
        bench.command(3, &Work::Lines(600, 0), &[0]);
        bench.claim(3, 0, BEGIN + 100);
        bench.mark('S', 3, 0, BEGIN + 110);
        bench.mark('E', 3, 0, BEGIN + 200);
        bench.chunk(3, 0, &Work::Lines(600, 0), 0, 4_096);
        bench.chunk(3, 0, &Work::Lines(600, 0), 4_096, 5_504);
        bench.exit(0, &Exit { chunks: 2, ..blank_exit(3, 0, &Work::Lines(600, 0)) });
        bench.command(4, &Work::Wait(50), &[0]);
        bench.withdraw(4, 0, WithdrawReason::Expired, BEGIN + 12_100);
        bench.command(5, &Work::Wait(50), &[1]);
        bench.cancel(5, BEGIN + 50);
        bench.withdraw(5, 1, WithdrawReason::Cancelled, BEGIN + 60);
        let failed =
            Exit { state: ExitState::Failed, exit_code: Some(3), ..blank_exit(6, 1, &Work::Fail(3)) };
        bench.run_to(6, &Work::Fail(3), 1, &failed, "SE");
        let killed = Exit {
            state: ExitState::Failed,
            exit_code: None,
            signal: Some("SIGKILL".to_owned()),
            ..blank_exit(7, 0, &Work::Die)
        };
        bench.run_to(7, &Work::Die, 0, &killed, "S");
        bench.command(8, &Work::Lines(900, 10), &[0]);
        bench.claim(8, 0, BEGIN + 100);
        bench.mark('S', 8, 0, BEGIN + 110);
        bench.chunk(8, 0, &Work::Lines(900, 10), 0, 4_096);
        bench.lost(8, 0, LostReason::KeeperGone, BEGIN + 2_000);
        let late = Exit {
            state: ExitState::Timeout,
            exit_code: None,
            signal: Some("SIGTERM".to_owned()),
            duration_ms: TIMEOUT_MS + 3,
            ..blank_exit(9, 1, &Work::Wait(20_000))
        };
        bench.run_to(9, &Work::Wait(20_000), 1, &late, "S");
        bench.unstored(10, Word::Refused(signalbox_schemas::error::ErrorCode::Invalid, "no".to_owned()));
        bench.unstored(11, Word::Unknown(5));
        bench
    }

    fn people(&mut self) {
        let author = |key: &SigningKey, role| Author {
            key: key.public().clone(),
            role,
            rights: vec![Right::Command],
            name: "x".to_owned(),
        };
        let authors = Authors {
            ws: ws(),
            version: 1,
            issued_at: BEGIN,
            not_after: BEGIN + 1_000_000_000,
            authors: vec![author(&self.keys.operator, Role::Admin), author(&self.keys.bridge, Role::Admin)],
            issuers: vec![],
            bridges: vec![self.keys.bridge.public().clone()],
            former_bridges: vec![],
            next_fleet_key: None,
            crit: vec![],
        };
        let body = Signed::sign(&authors, &self.keys.fleet).unwrap().to_json();
        self.store(&Subject::Authors(ws()), BEGIN, body);
        for n in 0..2 {
            let record = MachineRecord {
                ws: ws(),
                id: MachineId::new(format!("m{n}")).unwrap(),
                token: mid(n),
                keys: Some(RelayKeys {
                    login_key: key().public().clone(),
                    signing_key: self.keys.machines[n].public().clone(),
                }),
                enrolled_at: BEGIN,
                enrolled_by: None,
                former_keys: vec![],
                allow_legacy: false,
                labels: GivenLabels::default(),
                revision: 0,
            };
            let body = Signed::sign(&record, &self.keys.bridge).unwrap().to_json();
            self.store(&Subject::State(ws(), "machines".to_owned(), format!("m{n}")), BEGIN, body);
        }
    }

    fn store(&mut self, subject: &Subject, at: u64, body: Vec<u8>) {
        self.sequence += 1;
        let (subject, sequence) = (subject.to_string(), self.sequence);
        self.stored.push(Stored { subject, sequence, at, body: Base64Url(body) });
    }

    pub(super) fn spec(n: u8, work: &Work, machines: &[usize]) -> CommandSpec {
        CommandSpec {
            ws: ws(),
            cid: cid(n),
            command: script::text(work),
            timeout_ms: TIMEOUT_MS,
            created_at: BEGIN,
            expires_at: BEGIN + 10_000,
            not_before: None,
            rollout: None,
            retry_of: None,
            purpose: None,
            leave_children: false,
            max_output: 1_000_000,
            on: "all".to_owned(),
            targets: u32::try_from(machines.len()).unwrap(),
            by: "operator:local".to_owned(),
            created_by: None,
            target: None,
            crit: vec![],
            change: None,
        }
    }

    pub(super) fn command(&mut self, n: u8, work: &Work, machines: &[usize]) {
        self.command_of(&Self::spec(n, work, machines), work, machines);
    }

    pub(super) fn command_of(&mut self, spec: &CommandSpec, work: &Work, machines: &[usize]) {
        let bytes = serde_json::to_vec(spec).unwrap();
        let grant = |m: &usize| {
            let grant = Grant {
                ws: ws(),
                cid: spec.cid,
                mid: mid(*m),
                spec_sha256: Sha256::of(&bytes),
                expires_at: spec.expires_at,
                sealed: None,
            };
            Signed::sign(&grant, &self.keys.operator).unwrap()
        };
        let part = Grants { cid: spec.cid, n: 1, of: 1, grants: machines.iter().map(grant).collect() };
        let at = |piece| Subject::Command(ws(), spec.cid, piece);
        self.store(&at(CommandPiece::Part(1)), BEGIN + 10, serde_json::to_vec(&part).unwrap());
        self.store(&at(CommandPiece::Spec), BEGIN + 10, bytes);
        self.told.push(Told {
            command: spec.cid,
            machines: machines.iter().map(|m| mid(*m)).collect(),
            work: work.clone(),
            text: script::text(work),
            timeout_ms: spec.timeout_ms,
            by_http: false,
            asked_at: BEGIN,
            submit: Word::Accepted(machines.len() as u64),
            cancel: None,
        });
    }

    pub(super) fn unstored(&mut self, n: u8, submit: Word) {
        self.told.push(Told {
            command: cid(n),
            machines: vec![mid(0)],
            work: Work::Nothing,
            text: script::text(&Work::Nothing),
            timeout_ms: TIMEOUT_MS,
            by_http: true,
            asked_at: BEGIN,
            submit,
            cancel: None,
        });
    }

    fn whole_run(&mut self, n: u8, work: &Work, machines: &[usize]) {
        self.command(n, work, machines);
        let output = script::output(work, 0, u64::MAX);
        for m in machines {
            self.claim(n, *m, BEGIN + 100);
            self.mark('S', n, *m, BEGIN + 110);
            self.mark('E', n, *m, BEGIN + 200);
            let inline = InlineOutput { stdout: Base64Url(output.clone()), stderr: Base64Url(vec![]) };
            self.exit(*m, &Exit { inline: Some(inline), ..blank_exit(n, *m, work) });
        }
    }

    pub(super) fn run_to(&mut self, n: u8, work: &Work, m: usize, exit: &Exit, marks: &str) {
        self.command(n, work, &[m]);
        self.claim(n, m, BEGIN + 100);
        for (at, letter) in (1..).zip(marks.chars()) {
            self.mark(letter, n, m, BEGIN + 100 + at * 20);
        }
        self.exit(m, exit);
    }

    pub(super) fn mark(&mut self, letter: char, n: u8, m: usize, at: u64) {
        let up = at - BOOTED;
        let line = format!("{letter} {} {}.{:02}\n", cid(n), up / 1_000, up % 1_000 / 10);
        self.marks[m].push_str(&line);
    }

    pub(super) fn fact<T: Message>(&mut self, n: u8, m: usize, kind: FactKind, at: u64, fact: &T, key: Key) {
        let key = match key {
            Key::Bridge => &self.keys.bridge,
            Key::Machine(m) => &self.keys.machines[m],
        };
        let body = Signed::sign(fact, key).unwrap().to_json();
        self.store(&Subject::Run(ws(), mid(m), cid(n), kind), at, body);
    }

    pub(super) fn claim(&mut self, n: u8, m: usize, at: u64) {
        let claim = Claim { ws: ws(), mid: mid(m), cid: cid(n), nonce: nonce(m), claimed_at: at, via: None };
        self.fact(n, m, FactKind::Claim, at, &claim, Key::Machine(m));
    }

    pub(super) fn exit(&mut self, m: usize, exit: &Exit) {
        let n = exit.cid.to_string()[34..].parse().unwrap();
        self.fact(n, m, FactKind::Exit, BEGIN + 5_000, exit, Key::Machine(m));
    }

    pub(super) fn lost(&mut self, n: u8, m: usize, reason: LostReason, at: u64) {
        let lost = Lost {
            ws: ws(),
            mid: mid(m),
            cid: cid(n),
            nonce: nonce(m),
            reason,
            lost_at: at,
            known_bytes: [0, 0],
        };
        self.fact(n, m, FactKind::Lost, at, &lost, Key::Machine(m));
    }

    pub(super) fn withdraw(&mut self, n: u8, m: usize, reason: WithdrawReason, at: u64) {
        let withdrawal = Withdrawal { ws: ws(), mid: mid(m), cid: cid(n), reason, withdrawn_at: at };
        self.fact(n, m, FactKind::Claim, at, &withdrawal, Key::Bridge);
    }

    pub(super) fn cancel(&mut self, n: u8, at: u64) {
        let request = Request {
            ws: ws(),
            op: op::COMMANDS_CANCEL.to_owned(),
            args: serde_json::to_value(Cancel { id: cid(n) }).unwrap(),
            nonce: Nonce([9; 16]),
            issued_at: at,
        };
        let body = Signed::sign(&request, &self.keys.operator).unwrap().to_json();
        self.store(&Subject::Command(ws(), cid(n), CommandPiece::Cancel), at, body);
        self.told_mut(n).cancel = Some(Word::Accepted(1));
    }

    /// Lets the machine at a place of a command's list go.
    pub(super) fn let_go(&mut self, n: u8, place: u32, at: u64) {
        let mut progress = Progress { revision: 1, at, ..Progress::new(ws(), cid(n)) };
        progress.released.insert(place);
        let body = Signed::sign(&progress, &self.keys.bridge).unwrap().to_json();
        self.store(&Subject::Command(ws(), cid(n), CommandPiece::Rollout), at, body);
    }

    /// Moves a command with its runs to DONE, as bridges do an hour after it has settled.
    pub(super) fn move_to_done(&mut self, n: u8) {
        let ledger = Ledger::read(self.keys.fleet.public(), &self.stored);
        let command = ledger.commands.get(&cid(n)).unwrap();
        let is_of = |stored: &Stored, end: &str| {
            stored.subject.contains(&cid(n).to_string()) && stored.subject.ends_with(end)
        };
        let spec = self.stored.iter().find(|stored| is_of(stored, ".spec")).unwrap().body.clone();
        for machine in &command.machines {
            let of_run =
                |stored: &&Stored| is_of(stored, "") && stored.subject.contains(&format!(".{machine}."));
            let facts = self.stored.iter().filter(of_run).map(|stored| StoredFact {
                kind: *FactKind::ALL.iter().find(|kind| stored.subject.ends_with(kind.as_str())).unwrap(),
                sequence: stored.sequence,
                stored_at: stored.at,
                body: stored.body.clone(),
            });
            let state = ledger.state(cid(n), machine);
            let facts = facts.collect();
            let done = DoneRun { ws: ws(), mid: machine.clone(), cid: cid(n), state, facts };
            let body = Signed::sign(&done, &self.keys.bridge).unwrap().to_json();
            self.store(&Subject::DoneRuns(ws(), machine.clone()), BEGIN + 9_000, body);
        }
        let done = DoneCommand {
            spec_sha256: None,
            ws: ws(),
            cid: cid(n),
            spec,
            sequence: 1,
            accepted_at: BEGIN,
            author: self.keys.operator.public().clone(),
            machines: command.machines.clone(),
            counts: BTreeMap::new(),
            rollout: None,
        };
        let body = Signed::sign(&done, &self.keys.bridge).unwrap().to_json();
        // Of its runs only the registers stay.
        self.stored.retain(|stored| !is_of(stored, "") || stored.subject.ends_with("claim"));
        self.store(&Subject::DoneCommands(ws()), BEGIN + 9_000, body);
    }

    pub(super) fn told_mut(&mut self, n: u8) -> &mut Told {
        self.told.iter_mut().find(|told| told.command == cid(n)).unwrap()
    }

    pub(super) fn chunk(&mut self, n: u8, m: usize, work: &Work, offset: u64, len: u64) {
        let bytes = script::output(work, offset, len);
        let upto = script::output(work, 0, offset + len);
        self.sequence += 1;
        self.chunks.push(Chunk {
            subject: Subject::Output(ws(), mid(m), cid(n)).to_string(),
            sequence: self.sequence,
            head: Ok(Head { sha256: Some(Sha256::of(&upto)), cut: false }),
            piece: Piece::of(OutputStream::Stdout, offset, &bytes),
        });
    }

    /// Takes away every message whose subject ends so.
    pub(super) fn forget(&mut self, end: &str) {
        let before = self.stored.len();
        self.stored.retain(|stored| !stored.subject.ends_with(end));
        assert_ne!(before, self.stored.len(), "nothing ends with {end}");
    }

    /// Takes away the marks of a run.
    pub(super) fn unmark(&mut self, letter: char, n: u8, m: usize) {
        let begin = format!("{letter} {}", cid(n));
        let kept =
            self.marks[m].lines().filter(|line| !line.starts_with(&begin)).flat_map(|line| [line, "\n"]);
        let kept: String = kept.collect();
        assert_ne!(kept, self.marks[m]);
        self.marks[m] = kept;
    }
}

/// Who signs.
#[derive(Clone, Copy)]
pub(super) enum Key {
    Bridge,
    Machine(usize),
}
