//! A process that can be killed and started again, with everything it ever said.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::wait::{until, within};

/// Lines of a log that are printed when a test fails.
const TAIL_LINES: usize = 80;

/// When this variable is set, logs are printed also where a test passes.
const LOGS_ENV: &str = "TIDEGATE_E2E_LOGS";

/// One line of a process's output, and when it came.
#[derive(Debug, Clone)]
pub struct Line {
    /// When we read it.
    pub at: Instant,
    /// Without the line's end.
    pub text: String,
}

type Lines = Arc<Mutex<Vec<Line>>>;

fn lock(lines: &Lines) -> MutexGuard<'_, Vec<Line>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process. Dropping it kills it.
pub struct Process {
    name: String,
    make: Box<dyn Fn() -> Command + Send>,
    child: Option<Child>,
    readers: Vec<JoinHandle<()>>,
    lines: Lines,
}

impl Process {
    /// Starts a process; `make` is asked again at each [`Process::start`].
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn new(name: impl Into<String>, make: impl Fn() -> Command + Send + 'static) -> Self {
        let name = name.into();
        let mut process =
            Self { name, make: Box::new(make), child: None, readers: Vec::new(), lines: Lines::default() };
        process.start();
        process
    }

    /// Starts it, unless it runs.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&mut self) {
        if self.child.is_some() {
            return;
        }
        let mut command = (self.make)();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {command:?}: {e}", self.name));
        self.note(&format!("--- started as process {}", child.id()));
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|o| Box::new(o) as Box<dyn Read + Send>),
            child.stderr.take().map(|o| Box::new(o) as Box<dyn Read + Send>),
        ];
        for output in outputs.into_iter().flatten() {
            let lines = Arc::clone(&self.lines);
            self.readers.push(std::thread::spawn(move || {
                for line in BufReader::new(output).split(b'\n') {
                    let Ok(line) = line else { return };
                    let text = String::from_utf8_lossy(&line).into_owned();
                    lock(&lines).push(Line { at: Instant::now(), text });
                }
            }));
        }
        self.child = Some(child);
    }

    /// Adds a line of the test's own to the log.
    pub fn note(&self, text: &str) {
        lock(&self.lines).push(Line { at: Instant::now(), text: text.to_owned() });
    }

    /// Its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended by itself; then there is nothing to kill.
            let _ = child.kill();
            let status = child.wait();
            self.note(&format!("--- killed: {status:?}"));
        }
        self.join_readers();
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader ends with the pipe; it has nothing to return.
            let _ = reader.join();
        }
    }

    /// Sends a signal by its name, such as `INT`.
    ///
    /// # Panics
    /// When the process does not run any more.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().unwrap_or_else(|| panic!("{} does not run", self.name));
        let sent = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
        assert!(sent.is_ok_and(|s| s.success()), "{}: signal {name}", self.name);
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok()??;
        self.child = None;
        self.join_readers();
        self.note(&format!("--- ended: code {:?}, signal {:?}", status.code(), status.signal()));
        Some(status)
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it does not within `deadline`.
    pub fn wait_end(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        within(deadline, &what, || self.ended())
    }

    /// Everything it said, over all its lives.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        lock(&self.lines).clone()
    }

    /// Everything it said, as one text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines().into_iter().map(|l| l.text + "\n").collect()
    }

    /// Waits for a line for which `wanted` holds, after the first `skip` lines.
    ///
    /// # Panics
    /// When none comes, or the process ends before.
    pub fn wait_line(&mut self, what: &str, skip: usize, wanted: impl Fn(&str) -> bool) -> Line {
        until(&format!("{} says {what}", self.name), || {
            let found = lock(&self.lines).iter().skip(skip).find(|l| wanted(&l.text)).cloned();
            if found.is_none()
                && let Some(status) = self.ended()
            {
                panic!("{} ended ({status}) before it said {what}:\n{}", self.name, self.text());
            }
            found
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill9();
        if std::thread::panicking() || std::env::var_os(LOGS_ENV).is_some() {
            let lines = self.lines();
            let skipped = lines.len().saturating_sub(TAIL_LINES);
            eprintln!("===== log of {} ({skipped} lines left out)", self.name);
            for line in &lines[skipped..] {
                eprintln!("{}", line.text);
            }
            eprintln!("===== end of {}", self.name);
        }
    }
}
