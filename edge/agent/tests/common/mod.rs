//! The real binary as a child process.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Runs a command of the binary to its end: exit code, standard output, standard error.
pub fn tidegate_edge(args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
    let Output { status, stdout, stderr } =
        command.args(args).env_remove("TIDEGATE_EDGE_DATA_DIR").output().expect("the binary runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
}

/// A running agent, killed when the test ends before it.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended where the test went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// `tidegate-edge run` with these arguments and this environment.
    pub fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate-edge"));
        command.arg("run").args(args).envs(environment.iter().copied()).stderr(Stdio::null());
        Self(command.spawn().expect("the binary runs"))
    }

    pub fn signal(&self, signal: &str) {
        let kill = Command::new("kill").args([signal, &self.0.id().to_string()]).status();
        assert!(kill.is_ok_and(|status| status.success()));
    }

    /// Ends it as a service manager does.
    pub fn stop(self) {
        self.signal("-TERM");
        self.ends();
    }

    /// Waits until it has ended well.
    pub fn ends(mut self) {
        assert!(until("the end", || self.0.try_wait().expect("a child of ours")).success());
    }
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not come in time");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub fn write(dir: &Path, name: &str, text: &str) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).expect("the test's directory can be written");
    path.display().to_string()
}

/// A rule that forwards `pumps/#`.
pub fn rule(name: &str, remote: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nmountpoint = \"plant/{{edge}}/\"\n{more}[remote]\nurl = \"mqtt://{remote}\"\n[[forwards]]\ntopic = \"pumps/#\"\n"
    )
}
