// SPDX-License-Identifier: GPL-2.0

//! What drivers tell their devices through control virtqueues: learned, kept, and put into a record.

use nvhv_pure::ring::{Layout, Occasion, Ring, Slot, Told, View};
use nvhv_pure::shadow::{Commands, Control, Lost, Used};
use nvhv_pure::state::commands::{entry_len, header_len, AllCommands, SavedCommands, Writer};
use nvhv_pure::state::queues::QueueId;
use nvhv_pure_tests::commands;
use nvhv_pure_tests::random::Random;
use nvhv_pure_tests::ring::{Ram, BASE};

const ROOM: usize = 48 << 10;
const LONGEST: usize = 4 << 10;

fn empty(control: Control) -> Commands<Vec<u8>> {
    Commands::new(control, vec![0; ROOM], LONGEST).expect("room")
}

fn learn(commands: &mut Commands<Vec<u8>>, said: &[u8], answer: Option<u8>) {
    commands.learn(|room| {
        let len = said.len().min(room.len());
        room[..len].copy_from_slice(&said[..len]);
        let len = said.len();
        Some(Used { len, answer })
    });
}

fn list(commands: &Commands<Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut list, mut at) = (Vec::new(), 0);
    while let Some((command, next)) = commands.at(at) {
        list.push(command.to_vec());
        at = next;
    }
    list
}

fn net(said: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut commands = empty(Control::Net);
    said.iter()
        .for_each(|said| learn(&mut commands, said, Some(0)));
    assert_eq!(commands.lost(), None);
    list(&commands)
}

#[test]
fn the_last_of_each_kind_is_kept_in_the_order_of_the_last() {
    let found = net(&[
        &[0, 0, 1],
        &[4, 0, 2, 0],
        &[4, 1, 9, 9],
        &[0, 0, 0],
        &[4, 0, 3, 0],
        &[1, 1, 2, 2, 2, 2, 2, 2],
    ]);
    let want: [&[u8]; 4] = [
        &[4, 1, 9, 9],
        &[0, 0, 0],
        &[4, 0, 3, 0],
        &[1, 1, 2, 2, 2, 2, 2, 2],
    ];
    assert_eq!(found, want);
}

#[test]
fn vlans_come_and_go() {
    let found = net(&[
        &[2, 0, 1, 0],
        &[2, 0, 1, 1],
        &[2, 1, 7, 0],
        &[2, 0, 7, 0],
        &[2, 1, 1, 0],
        &[2, 0, 7, 0],
    ]);
    let want: [&[u8]; 2] = [&[2, 0, 1, 1], &[2, 0, 7, 0]];
    assert_eq!(found, want);
    // All that there can be.
    let mut commands = empty(Control::Net);
    for vlan in 0..4096u16 {
        let [low, high] = vlan.to_le_bytes();
        learn(&mut commands, &[2, 0, low, high], Some(0));
    }
    learn(&mut commands, &[0; LONGEST], Some(0));
    assert_eq!(commands.lost(), None);
    assert_eq!(list(&commands).len(), 4097);
}

#[test]
fn what_leaves_nothing_is_not_kept() {
    assert!(net(&[&[3, 0], &[6, 3, 1, 0], &[8, 0], &[8, 1, 0], &[], &[0]]).is_empty());
}

#[test]
fn a_command_that_failed_changed_nothing() {
    let mut commands = empty(Control::Net);
    learn(&mut commands, &[4, 0, 2, 0], Some(0));
    for answer in [Some(1), Some(255), None] {
        learn(&mut commands, &[4, 0, 3, 0], answer);
        learn(&mut commands, &[200, 0], answer);
    }
    assert_eq!(list(&commands), [[4, 0, 2, 0]]);
    assert_eq!(commands.lost(), None);
}

#[test]
fn what_cannot_be_kept_is_not_forgotten() {
    let mut commands = empty(Control::Net);
    learn(&mut commands, &[200, 3], Some(0));
    assert_eq!(commands.lost(), Some(Lost::Unknown(200, 3)));
    let mut commands = Commands::new(Control::Net, vec![0; 40], 10).expect("room");
    learn(&mut commands, &[1; 11], Some(1));
    assert_eq!(commands.lost(), None);
    learn(&mut commands, &[1; 11], Some(0));
    assert_eq!(commands.lost(), Some(Lost::TooLong));
    let mut commands = Commands::new(Control::Net, vec![0; 40], 10).expect("room");
    for number in 0..3 {
        assert_eq!(commands.lost(), None);
        learn(&mut commands, &[0, number, 0, 0, 0, 0, 0, 0], Some(0));
    }
    // Two fit besides the room for the next; the first lost one stays the reason.
    assert_eq!(commands.lost(), Some(Lost::TooLong));
    commands.learn(|_| None);
    assert_eq!(commands.lost(), Some(Lost::TooLong));
    let mut commands = empty(Control::Console);
    commands.learn(|_| None);
    assert_eq!(commands.lost(), Some(Lost::Unreadable));
}

fn event(port: u32, event: u16, value: u16) -> [u8; 8] {
    let [p0, p1, p2, p3] = port.to_le_bytes();
    let [e0, e1] = event.to_le_bytes();
    let [v0, v1] = value.to_le_bytes();
    [p0, p1, p2, p3, e0, e1, v0, v1]
}

#[test]
fn ports_are_ready_before_they_are_open() {
    const READY: u16 = 3;
    const OPEN: u16 = 6;
    let mut commands = empty(Control::Console);
    for said in [
        event(u32::MAX, 0, 1),
        event(1, READY, 1),
        event(0, READY, 1),
        event(1, OPEN, 1),
        event(0, OPEN, 1),
        event(1, OPEN, 0),
        event(1, READY, 1),
        // What only devices say, and what is too short.
        event(1, 1, 1),
    ] {
        learn(&mut commands, &said, None);
    }
    learn(&mut commands, &[0; 7], None);
    // What is longer counts as far as it goes.
    learn(
        &mut commands,
        &[&event(0, OPEN, 2)[..], &[9; 60]].concat(),
        None,
    );
    assert_eq!(
        list(&commands),
        [
            event(u32::MAX, 0, 1),
            event(1, READY, 1),
            event(0, READY, 1),
            event(1, OPEN, 0),
            event(0, OPEN, 2),
        ]
    );
    assert_eq!(commands.lost(), None);
    // A console with as many ports as QEMU gives one.
    for port in 0..511 {
        learn(&mut commands, &event(port, READY, 1), None);
        learn(&mut commands, &event(port, OPEN, 1), None);
    }
    assert_eq!(commands.lost(), None);
    assert_eq!(list(&commands).len(), 1 + 2 * 511);
}

/// Some command that may mean something.
fn some(control: Control, random: &mut Random) -> Vec<u8> {
    match control {
        Control::Net => {
            let mut said = vec![random.below(9) as u8, random.below(4) as u8];
            for _ in 0..random.below(12) {
                said.push(random.below(3) as u8);
            }
            said
        }
        Control::Console => {
            let (port, kind) = (random.below(4) as u32, random.below(8) as u16);
            event(port, kind, random.below(2) as u16).to_vec()
        }
    }
}

/// As simple as it can be said: what is kept is a list of pairs of key and command.
#[derive(Default)]
struct Model(Vec<(Vec<u8>, Vec<u8>)>);

impl Model {
    fn learn(&mut self, control: Control, said: &[u8]) {
        let word = said.get(2..4).unwrap_or(&[0, 0]);
        let key = match (control, said) {
            (Control::Net, [2, 0, ..] | [6, 2, ..]) => [&said[..2], word].concat(),
            (Control::Net, [2, 1, ..]) => {
                let key = [&[2, 0], word].concat();
                return self.0.retain(|(other, _)| *other != key);
            }
            (Control::Net, [0, 0..=5, ..] | [1, 0 | 1, ..] | [4, 0..=2, ..] | [5, 0, ..])
            | (Control::Net, [6, 0 | 1, ..]) => said[..2].to_vec(),
            (Control::Net, _) => return,
            (Control::Console, _) => match said[4] {
                0 => vec![0],
                3 | 6 => said[..6].to_vec(),
                _ => return,
            },
        };
        let pair = (key.clone(), said.to_vec());
        let at = self.0.iter().position(|(other, _)| *other == key);
        match (at, control) {
            (Some(at), Control::Console) => self.0[at] = pair,
            (Some(at), Control::Net) => {
                self.0.remove(at);
                self.0.push(pair);
            }
            (None, _) => self.0.push(pair),
        }
    }
}

#[test]
fn as_the_model_says() {
    for seed in 0..400 {
        let mut random = Random::new(seed);
        let control = [Control::Net, Control::Console][seed as usize % 2];
        let (mut commands, mut model) = (empty(control), Model::default());
        for _ in 0..random.below(60) {
            let said = some(control, &mut random);
            let answer = random.below(4) != 0;
            learn(&mut commands, &said, Some(u8::from(!answer)));
            if answer || control == Control::Console {
                model.learn(control, &said);
            }
            let want: Vec<_> = model.0.iter().map(|(_, said)| said.clone()).collect();
            assert_eq!(list(&commands), want, "seed {seed}");
        }
        let saved = commands.saved().to_vec();
        let again = Commands::restore(control, vec![0; ROOM], LONGEST, &saved).expect("saved");
        assert_eq!(again.saved(), saved);
    }
}

#[test]
fn damaged_lists_are_refused() {
    let mut commands = empty(Control::Net);
    for said in [&[0, 0, 1][..], &[2, 0, 5, 0], &[4, 0, 2, 0]] {
        learn(&mut commands, said, Some(0));
    }
    let saved = commands.saved().to_vec();
    let restore = |saved: &[u8]| Commands::restore(Control::Net, vec![0; ROOM], LONGEST, saved);
    assert!(restore(&saved).is_some());
    for cut in 1..saved.len() {
        // Cut between commands it is a list as well.
        let whole = [5, 11].contains(&cut);
        assert_eq!(restore(&saved[..cut]).is_some(), whole, "{cut}");
    }
    assert!(
        restore(&[&saved[..], &saved[..5]].concat()).is_none(),
        "twice"
    );
    assert!(restore(&[2, 0, 3, 0]).is_none(), "nothing to be kept");
    assert!(restore(&[4, 0, 2, 1, 5, 0]).is_none(), "undone");
    assert!(restore(&[2, 0, 200, 0]).is_none(), "unknown");
    let long = [&1000u16.to_le_bytes()[..], &[0; 1000]].concat();
    assert!(Commands::restore(Control::Net, vec![0; ROOM], 999, &long).is_none());
}

#[test]
fn records_round_trip() {
    let all = [(5, 3, &[1u8, 2, 3][..]), (9, 1, &[]), (12, 3, &[7; 16])];
    let saved = all.map(|(device, device_type, commands)| SavedCommands {
        id: QueueId { device, queue: 3 },
        device_type,
        commands,
    });
    let len: usize = all.iter().map(|(_, _, said)| entry_len(said.len())).sum();
    let mut out = vec![0xff; header_len() + len];
    let mut writer = Writer::new(&mut out).expect("room");
    saved.iter().for_each(|one| writer.push(one).expect("room"));
    assert_eq!(writer.push(&saved[0]), None);
    assert_eq!(writer.finish(), Some(out.len()));
    let parsed = AllCommands::parse(&out).expect("sound");
    assert!(parsed.iter().eq(saved));
    assert_eq!(parsed.find(saved[2].id), Some(saved[2]));
    for cut in 0..out.len() {
        assert!(AllCommands::parse(&out[..cut]).is_none(), "{cut}");
    }
    assert!(AllCommands::parse(&[&out[..], &[0; 8]].concat()).is_none());
    // What must be zero: in the head, and behind the first list.
    for at in [4, header_len() + 16 + 3] {
        let mut bad = out.clone();
        bad[at] = 1;
        assert!(AllCommands::parse(&bad).is_none(), "{at}");
    }
}

#[test]
fn no_list_and_no_command_panics() {
    for seed in 0..4000 {
        let mut random = Random::new(seed);
        let data: Vec<u8> = (0..random.below(200))
            .map(|_| match random.below(3) {
                0 => random.word() as u8,
                _ => random.below(9) as u8,
            })
            .collect();
        let done = std::panic::catch_unwind(|| commands::fuzz(&data));
        assert!(done.is_ok(), "seed {seed}: {data:02x?}");
    }
}

const LAYOUT: Layout = Layout {
    size: 8,
    desc: BASE,
    avail: BASE + 0x1000,
    used: BASE + 0x2000,
    event_idx: false,
    indirect: true,
};

/// Sealed with one request in flight, whose head is 5.
fn sealed(ram: &Ram) -> Vec<u8> {
    LAYOUT.pages().for_each(|page| ram.shadow(page));
    let mut ring = Ring::new(LAYOUT, vec![Slot::default(); 8]).expect("sound");
    ring.start(ram).expect("RAM");
    ram.put(View::Guest, BASE + 16 * 5, &(BASE + 0x3000).to_le_bytes());
    ram.put_u16(View::Guest, LAYOUT.avail + 4, 5);
    ram.put_u16(View::Guest, LAYOUT.avail + 2, 1);
    assert_eq!(ring.submit(ram), Ok(1));
    let mut saved = vec![0; Ring::<Vec<Slot>>::saved_len(8)];
    let len = ring.save(&mut saved).expect("room");
    saved.truncate(len);
    ram.shadow_again();
    saved
}

#[test]
fn who_answers_late_is_shown_requests_then() {
    let ram = Ram::new(6, || 0);
    let saved = sealed(&ram);
    LAYOUT.table_pages().for_each(|page| ram.shadow(page));
    let slots = vec![Slot::default(); 8];
    let mut ring = Ring::restore_telling(LAYOUT, slots, &saved, &ram).expect("sound");
    assert_eq!(ring.tell(&ram, [&[4, 0], &[2, 0]], true), Ok(true));
    ring.give_up_telling();
    let available = || ram.get_u16(View::Device, LAYOUT.avail + 2);
    for _ in 0..2 {
        ring.complete(&ram, Occasion::Interrupt).expect("sound");
        assert_eq!((ring.submit(&ram), available()), (Ok(0), 1));
    }
    // It can be sealed meanwhile, as it was.
    let mut again = vec![0; saved.len()];
    assert_eq!(ring.save(&mut again), Some(saved.len()));
    assert_eq!(again, saved);
    ram.put_u16(View::Device, LAYOUT.used + 2, 1);
    ring.complete(&ram, Occasion::Interrupt).expect("sound");
    assert_eq!(available(), 2);
    assert_eq!(ram.get_u16(View::Device, LAYOUT.avail + 6), 5);
    // The driver has seen nothing of all that.
    assert_eq!(ram.get_u16(View::Guest, LAYOUT.used + 2), 0);
}

#[test]
fn nothing_is_told_where_the_guest_would_see_it() {
    let ram = Ram::new(6, || 0);
    let saved = sealed(&ram);
    let before: [u8; 4096] = ram.get(View::Guest, BASE);
    let slots = vec![Slot::default(); 8];
    let mut ring = Ring::restore_telling(LAYOUT, slots, &saved, &ram).expect("sound");
    assert_eq!(ring.tell(&ram, [&[4, 0], &[2, 0]], true), Ok(false));
    LAYOUT.table_pages().for_each(|page| ram.shadow(page));
    assert_eq!(ring.tell(&ram, [&[4, 0], &[2, 0]], true), Ok(true));
    assert_eq!(ram.get::<4096>(View::Guest, BASE), before);
    // Used by another name, or twice: the device breaks the ring.
    ram.put_u16(View::Device, LAYOUT.used + 2, 1);
    assert_eq!(ring.told(&ram), Ok(Told::Used(Some(0xff))));
    assert_eq!(ring.tell(&ram, [&[4, 0], &[2, 0]], true), Ok(true));
    ram.put(View::Device, LAYOUT.used + 12, &[5]);
    ram.put_u16(View::Device, LAYOUT.used + 2, 2);
    assert!(ring.told(&ram).is_err());
}

/// What a ring tells of requests that were used, however their buffers are cut.
#[test]
fn requests_are_read_when_they_are_used() {
    let layout = LAYOUT;
    let ram = Ram::new(6, || 0);
    layout.pages().for_each(|page| ram.shadow(page));
    let mut ring = Ring::new(layout, vec![Slot::default(); 8]).expect("sound");
    ring.start(&ram).expect("RAM");
    let put = |index: u64, addr: u64, len: u32, flags: u16, next: u16| {
        let at = BASE + 16 * index;
        ram.put(View::Guest, at, &addr.to_le_bytes());
        ram.put(View::Guest, at + 8, &len.to_le_bytes());
        ram.put_u16(View::Guest, at + 12, flags);
        ram.put_u16(View::Guest, at + 14, next);
    };
    // Class and command, data in two parts (one in a shadowed page), the answer in another.
    let (head, data, more, answer) = (BASE + 0x3000, BASE + 0x1f00, BASE + 0x4000, BASE + 0x2f00);
    put(0, head, 2, 1, 1);
    put(1, data, 1, 1, 2);
    put(2, more, 1, 1, 3);
    put(3, answer - 1, 2, 2, 0);
    ram.put(View::Guest, head, &[4, 0]);
    ram.put(View::Guest, data, &[2]);
    ram.put(View::Guest, answer, &[0xaa]);
    let mut made = 0u16;
    let mut go = |answered: u8, room: usize| {
        ram.put_u16(View::Guest, layout.avail + 4 + 2 * u64::from(made % 8), 0);
        ram.put_u16(View::Guest, layout.avail + 2, made + 1);
        assert_eq!(ring.submit(&ram), Ok(1));
        ram.put(View::Device, answer, &[answered]);
        ram.put_u16(View::Device, layout.used + 2, made + 1);
        made += 1;
        let mut found = Vec::new();
        ring.complete_seen(&ram, Occasion::Interrupt, |request| {
            // The driver does not see it yet.
            assert_eq!(ram.get_u16(View::Guest, layout.used + 2), made - 1);
            let mut said = vec![0xee; room];
            let read = request.read(&mut said);
            found.push((said, read));
        })
        .expect("sound");
        found
    };
    let whole = vec![4, 0, 2, 0, 0xee];
    assert_eq!(go(0, 5), [(whole, Some((4, Some(0))))]);
    assert_eq!(go(1, 3), [(vec![4, 0, 2], Some((4, Some(1))))]);
}
