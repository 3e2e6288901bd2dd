//! The program on a terminal: a pseudo-terminal, and what is to be seen on its screen.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use vt100::Parser;

use super::eventually;

/// So tall that nothing scrolls out of sight.
const ROWS: u16 = 2_000;
/// So wide that no line of the log is wrapped.
pub const WIDE: u16 = 1_000;

/// A running `clicktide` whose three streams are a terminal, as if somebody had typed the command; killed when dropped.
pub struct Tty {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Parser>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Tty {
    /// Starts `clicktide` in `dir` with these arguments, on a terminal that is so wide.
    pub fn start<A: AsRef<OsStr>>(dir: &Path, columns: u16, args: impl IntoIterator<Item = A>) -> Tty {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&terminal).expect("granted");
        unlockpt(&terminal).expect("unlocked");
        let size = Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).expect("its size");
        let name = ptsname(&terminal, Vec::new()).expect("its name");
        let end = || {
            File::from(rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("its other end"))
        };
        // In a session of its own, so that what is typed interrupts the program and its processes.
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(env!("CARGO_BIN_EXE_clicktide")).args(args).current_dir(dir);
        command.env("TERM", "xterm-256color").env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE");
        command.stdin(Stdio::from(end())).stdout(Stdio::from(end())).stderr(Stdio::from(end()));
        let child = command.spawn().expect("setsid, which is in util-linux");
        let keyboard = File::from(terminal);
        let size = |count: u16| NonZero::new(count).expect("a size");
        let screen = Arc::new(Mutex::new(Parser::new(size(ROWS), size(columns), 0)));
        let written = Arc::new(Mutex::new(Vec::new()));
        let (mut output, showing, kept) =
            (keyboard.try_clone().expect("a copy"), Arc::clone(&screen), Arc::clone(&written));
        std::thread::spawn(move || {
            let mut bytes = [0; 4_096];
            // The terminal is hung up when nobody has it open any more.
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                kept.lock().unwrap().extend(&bytes[..count]);
                showing.lock().unwrap().process(&bytes[..count]);
            }
        });
        Tty { child, keyboard, screen, written }
    }

    /// The lines on the screen.
    pub fn lines(&self) -> Vec<String> {
        let screen = self.screen.lock().unwrap();
        let rows = screen.screen().rows(0, WIDE);
        rows.map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// Everything that was ever written to it.
    pub fn written(&self) -> String {
        String::from_utf8_lossy(&self.written.lock().unwrap()).into_owned()
    }

    /// Waits until the screen shows something.
    pub fn until<T>(&self, what: &str, deadline: Duration, see: impl Fn(&[String]) -> Option<T>) -> T {
        let wait = std::panic::AssertUnwindSafe(|| eventually(what, deadline, || see(&self.lines())));
        std::panic::catch_unwind(wait).unwrap_or_else(|panic| {
            eprintln!("on the screen:\n{}", self.lines().join("\n"));
            std::panic::resume_unwind(panic)
        })
    }

    /// Ctrl-C.
    pub fn interrupt(&mut self) {
        self.keyboard.write_all(b"\x03").expect("typed");
    }

    /// Waits until it ends.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        eventually("it ends", deadline, || self.child.try_wait().expect("wait"))
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
