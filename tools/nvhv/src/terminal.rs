// SPDX-License-Identifier: GPL-2.0

//! A terminal that shows one page after the other, and is as it was before when this goes.

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::signal::{raise, SigSet, Signal};
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{tcgetattr, tcsetattr, LocalFlags, SetArg, Termios};
use nix::unistd::read;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// console_codes(4): the other screen and back, with the cursor hidden meanwhile; the first place; the rest of a line, and
/// of the page, erased.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
const HOME: &str = "\x1b[H";
const ERASE_LINE: &str = "\x1b[K";
const ERASE_REST: &str = "\x1b[J";

/// What somebody wants.
#[derive(PartialEq, Eq)]
pub enum Wish {
    /// The next page: it is time, the window is another one, or a key was pressed.
    Next,
    /// No more.
    Quit,
}

/// The terminal, which is ours for a while.
pub struct Terminal {
    before: Termios,
    signals: SignalFd,
}

impl Terminal {
    /// Takes the terminal; nothing if there is none.
    pub fn take() -> io::Result<Option<Self>> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Ok(None);
        }
        let mut signals = SigSet::empty();
        [
            Signal::SIGINT,
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGWINCH,
            Signal::SIGTSTP,
        ]
        .map(|signal| signals.add(signal));
        signals.thread_block()?;
        let terminal = Terminal {
            before: tcgetattr(io::stdin())?,
            signals: SignalFd::new(&signals)?,
        };
        terminal.enter()?;
        Ok(Some(terminal))
    }

    /// Keys come at once, and unseen.
    fn enter(&self) -> io::Result<()> {
        let mut ours = self.before.clone();
        ours.local_flags -= LocalFlags::ICANON | LocalFlags::ECHO;
        tcsetattr(io::stdin(), SetArg::TCSANOW, &ours)?;
        io::stdout().write_all(ENTER.as_bytes())
    }

    /// A terminal that is gone cannot be mended.
    fn leave(&self) {
        let _ = io::stdout().write_all(LEAVE.as_bytes());
        let _ = io::stdout().flush();
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.before);
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        let size = terminal_size::terminal_size();
        size.map_or((80, 24), |(width, height)| {
            (width.0.into(), height.0.into())
        })
    }

    /// Shows a page that is no larger than the terminal.
    pub fn show(&self, page: &[String]) -> io::Result<()> {
        let page = page.join(&format!("{ERASE_LINE}\r\n"));
        let mut out = io::stdout().lock();
        write!(out, "{HOME}{page}{ERASE_LINE}{ERASE_REST}")?;
        out.flush()
    }

    /// Waits until something is wanted.
    pub fn wait(&self, time: Duration) -> io::Result<Wish> {
        let deadline = Instant::now() + time;
        let stdin = io::stdin();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that what is left is not nothing.
            let left = left.as_nanos().div_ceil(1_000_000);
            let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut waits =
                [stdin.as_fd(), self.signals.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            if poll(&mut waits, left)? == 0 {
                return Ok(Wish::Next);
            }
            if waits[1].any() == Some(true) {
                let Some(info) = self.signals.read_signal()? else {
                    continue;
                };
                match Signal::try_from(info.ssi_signo as i32) {
                    Ok(Signal::SIGWINCH) => {}
                    Ok(Signal::SIGTSTP) => {
                        self.leave();
                        // Until somebody has it go on.
                        raise(Signal::SIGSTOP)?;
                        self.enter()?;
                    }
                    _ => return Ok(Wish::Quit),
                }
                return Ok(Wish::Next);
            }
            let mut keys = [0; 64];
            // Past the buffer of the library, of which poll(2) knows nothing.
            let count = read(&stdin, &mut keys)?;
            let quits = count == 0 || keys[..count].iter().any(|key| b"qQ".contains(key));
            return Ok(if quits { Wish::Quit } else { Wish::Next });
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.leave();
    }
}
