// SPDX-License-Identifier: GPL-2.0

//! The fuzz target of what drivers tell their devices.

use nvhv_pure::shadow::{Commands, Control, Used};
use nvhv_pure::state::commands::AllCommands;

/// Takes `data` for the commands in a record, for a list of commands, and for commands that are given one
/// after the other: after one byte that says whose they are and how much room there is.
pub fn fuzz(data: &[u8]) {
    if let Some(all) = AllCommands::parse(data) {
        assert!(all.iter().all(|one| all.find(one.id).is_some()));
    }
    let Some((&shape, data)) = data.split_first() else {
        return;
    };
    let control = [Control::Net, Control::Console][usize::from(shape & 1)];
    let (room, longest) = (vec![0xee; usize::from(shape)], usize::from(shape / 4));
    if let Some(list) = Commands::restore(control, room.clone(), longest, data) {
        assert_eq!(list.saved(), data);
    }
    let Some(mut list) = Commands::new(control, room.clone(), longest) else {
        return;
    };
    let mut rest = data;
    while let [len, answer, more @ ..] = rest {
        let (said, more) = more.split_at(usize::from(len % 32).min(more.len()));
        rest = more;
        list.learn(|room| {
            assert_eq!(room.len(), longest);
            let len = said.len().min(longest);
            room[..len].copy_from_slice(&said[..len]);
            Some(Used {
                len: said.len(),
                answer: (*answer != 0xff).then_some(answer & 1),
            })
        });
        // What is kept can be read back, and be told.
        let saved = list.saved();
        let again = Commands::restore(control, room.clone(), longest, saved).expect("a list");
        assert_eq!(again.saved(), saved);
        let mut at = 0;
        while let Some((command, next)) = list.at(at) {
            assert_eq!(control.parts(command).concat(), command);
            at = next;
        }
        assert_eq!(at, saved.len());
    }
}
