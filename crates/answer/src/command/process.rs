//! The running program: its pipes, each with a thread of its own, so that neither side can wait for the other for ever.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError, channel, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longest line that is taken from the program, in bytes.
pub(super) const MAX_LINE: usize = 1 << 24;
/// Lines that may wait to be read before the program has to.
const LINES_AHEAD: usize = 1024;
/// What is kept of the program's stderr: so many last lines, of so many bytes each.
const STDERR_LINES: usize = 20;
const STDERR_LINE_BYTES: usize = 500;
/// How long an end of the output is given to turn out as the end of the program, and its last words to arrive.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// What came from the program.
pub(super) enum Received {
    /// A line, without its line break.
    Line(Vec<u8>),
    /// The start of a line of more than [`MAX_LINE`] bytes.
    TooLong(Vec<u8>),
    /// The program ended, or closed its output.
    End,
    /// Nothing in time.
    Nothing,
}

#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Gone when nothing more is asked.
    input: Option<Sender<Vec<u8>>>,
    // A receiver alone could not be shared between threads, as a `Reward` may be.
    output: Mutex<Receiver<Result<Vec<u8>, Vec<u8>>>>,
    stderr: Arc<Tail>,
    /// Whether it has been waited for and its group been killed: from then on the system may give its number to others.
    gone: bool,
}

/// The last lines of the program's stderr, filled by a thread.
#[derive(Debug, Default)]
struct Tail {
    lines: Mutex<(VecDeque<String>, bool)>,
    done: Condvar,
}

impl Process {
    /// Starts the program in a process group of its own: Ctrl-C in a terminal is for the trainer, which ends it in
    /// order.
    pub(super) fn start(command: &[String]) -> std::io::Result<Self> {
        let missing = || std::io::Error::other("the system gave no pipe to it");
        let mut builder = Command::new(&command[0]);
        builder.args(&command[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut builder, 0);
        let mut child = builder.spawn()?;
        let (mut stdin, stdout, stderr) = match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
            (Some(stdin), Some(stdout), Some(stderr)) => (stdin, stdout, stderr),
            _ => return Err(missing()),
        };
        let (input, batches) = channel::<Vec<u8>>();
        let thread = |job: Box<dyn FnOnce() + Send>| std::thread::Builder::new().spawn(job).map(drop);
        let write = move || {
            // A failed write means that the program ended, which its output shows.
            while let Ok(batch) = batches.recv()
                && stdin.write_all(&batch).and_then(|()| stdin.flush()).is_ok()
            {}
        };
        let (lines, output) = sync_channel(LINES_AHEAD);
        let tail = Arc::new(Tail::default());
        let kept = Arc::clone(&tail);
        // From here on an error ends the program, too, which is dropped.
        let process = Self { child, input: Some(input), output: Mutex::new(output), stderr: tail, gone: false };
        thread(Box::new(write))?;
        thread(Box::new(move || read_lines(BufReader::new(stdout), &lines)))?;
        thread(Box::new(move || kept.fill(BufReader::new(stderr))))?;
        Ok(process)
    }

    /// Hands a batch to the writer; does not wait for the program to read it.
    pub(super) fn send(&self, lines: Vec<u8>) {
        // Refused only when the writer met the end of the program, which the output shows too.
        let _ = self.input.as_ref().map(|input| input.send(lines));
    }

    /// Closes the program's input, once what was sent is written.
    pub(super) fn close(&mut self) {
        self.input = None;
    }

    /// The next line, awaited until `deadline`.
    pub(super) fn line(&mut self, deadline: Instant) -> Received {
        let output = self.output.get_mut().unwrap_or_else(PoisonError::into_inner);
        let left = deadline.saturating_duration_since(Instant::now());
        let received = match left.is_zero() {
            true => output.try_recv().map_err(|e| e == TryRecvError::Disconnected),
            false => output.recv_timeout(left).map_err(|e| e == RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(Ok(line)) => Received::Line(line),
            Ok(Err(start)) => Received::TooLong(start),
            Err(true) => Received::End,
            Err(false) => Received::Nothing,
        }
    }

    /// How the program ended, after its output did. One that merely closed its output is killed.
    pub(super) fn end(&mut self) -> String {
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until {
            match self.child.try_wait() {
                Ok(Some(status)) => {
                    self.kill(); // what it may have started
                    return describe(status);
                }
                Ok(None) => std::thread::sleep(Duration::from_millis(2)),
                Err(_) => break,
            }
        }
        self.kill();
        "closed its output without ending".into()
    }

    /// Ends the program and, where there are process groups, all that it started.
    pub(super) fn kill(&mut self) {
        if std::mem::replace(&mut self.gone, true) {
            return;
        }
        #[cfg(unix)]
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            // It fails when nobody is left.
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        // Both do nothing when it has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The last lines of stderr, to be appended to a message.
    pub(super) fn stderr(&self) -> String {
        let lines = self.stderr.wait();
        if lines.is_empty() {
            return "; it wrote nothing to stderr".into();
        }
        lines.iter().fold("; its stderr ends:".to_owned(), |text, line| text + "\n  | " + line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, (VecDeque<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fill(&self, mut stderr: impl BufRead) {
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line without end is shown in pieces.
            match (&mut stderr).take(STDERR_LINE_BYTES as u64).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                    let (lines, _) = &mut *self.lock();
                    if !text.is_empty() {
                        lines.push_back(text);
                    }
                    if lines.len() > STDERR_LINES {
                        lines.pop_front();
                    }
                }
            }
        }
        self.lock().1 = true;
        self.done.notify_all();
    }

    /// The lines, after the pipe was closed or a moment went by: something that the program started may hold it open.
    fn wait(&self) -> VecDeque<String> {
        let waiting = self.done.wait_timeout_while(self.lock(), LAST_WORDS, |(_, done)| !*done);
        waiting.unwrap_or_else(PoisonError::into_inner).0.0.clone()
    }
}

/// Passes lines on until the pipe or the receiver ends; an `Err` is the start of a line that is too long.
fn read_lines(mut stdout: impl BufRead, lines: &SyncSender<Result<Vec<u8>, Vec<u8>>>) {
    loop {
        let mut line = Vec::new();
        let read = (&mut stdout).take(MAX_LINE as u64 + 1).read_until(b'\n', &mut line);
        let message = match read {
            Ok(0) | Err(_) => return,
            Ok(_) if line.last() == Some(&b'\n') => {
                line.pop();
                Ok(line)
            }
            // The program ended within a line: its end is what is reported.
            Ok(_) if line.len() <= MAX_LINE => return,
            Ok(_) => Err(line),
        };
        let last = message.is_err();
        if lines.send(message).is_err() || last {
            return;
        }
    }
}

fn describe(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was ended by signal {signal}");
    }
    match status.code() {
        Some(code) => format!("exited with status {code}"),
        None => "ended".into(),
    }
}
