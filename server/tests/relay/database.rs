//! A PostgreSQL server of the test's own, on a free port, with its files in a temporary folder.

use std::{
    net::TcpListener,
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// `nobody`: PostgreSQL does not run as root.
const NOBODY: u32 = 65_534;

pub struct Database {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Database {
    /// Starts one; none, with the reason printed, where the machine has no PostgreSQL. Then `UNSAID_REQUIRE_POSTGRES` makes that a
    /// failure.
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            let reason = "no PostgreSQL was found (Debian: apt-get install postgresql), or UNSAID_POSTGRES does not name the \
                          folder of its programs: this test does nothing";
            assert!(std::env::var_os("UNSAID_REQUIRE_POSTGRES").is_none(), "{reason}");
            eprintln!("{reason}");
            return None;
        };
        let folder = TempDir::new().unwrap();
        if is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        let mut database = Self {
            folder,
            programs,
            port: 0,
            server: None,
        };
        let done = database
            .program("initdb")
            .args([
                "--no-sync",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "-U",
                "unsaid",
                "-D",
            ])
            .arg(database.files())
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        database.certify();
        database.port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        database.resume();
        Some(database)
    }

    /// A certificate for `localhost`, by itself its own authority.
    fn certify(&self) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        std::fs::write(self.authority(), made.cert.pem()).unwrap();
        let key = self.files().join("server.key");
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        if is_root() {
            chown(&key, Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Starts the server again after [`Self::kill`].
    pub fn resume(&mut self) {
        let mut command = self.program("postgres");
        command
            .arg("-D")
            .arg(self.files())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "unix_socket_directories=", "-c", "max_connections=100"]);
        if self.can_encrypt() {
            command.args([
                "-c",
                "ssl=on",
                "-c",
                "ssl_cert_file=server.crt",
                "-c",
                "ssl_key_file=server.key",
            ]);
        }
        self.server = Some(command.spawn().unwrap());
        let begun = Instant::now();
        loop {
            if self.answers() {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(30),
                "PostgreSQL does not start"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Not every PostgreSQL is built with TLS. The measurements do without; the tests that need it fail.
    fn can_encrypt(&self) -> bool {
        let mut command = self.program("postgres");
        command
            .arg("-D")
            .arg(self.files())
            .args(["-C", "ssl_library"])
            .stdout(Stdio::piped());
        let library = command.output().unwrap().stdout;
        !library.trim_ascii().is_empty()
    }

    /// Whether it takes connections.
    fn answers(&self) -> bool {
        let address = self.address();
        let ask = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let connected = runtime
                .unwrap()
                .block_on(tokio_postgres::connect(&address, tokio_postgres::NoTls));
            connected.is_ok()
        };
        std::thread::spawn(ask).join().unwrap() // where a runtime runs already, another needs another thread
    }

    /// Stops every process of the server where it is: connections stay, and nothing is answered.
    #[allow(dead_code)] // the tests ask
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Has them go on.
    #[allow(dead_code)] // the tests ask
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// The first process first: it starts no more meanwhile. One that has ended needs nothing.
    fn signal(&self, name: &str) {
        let send = |process: &str| {
            let mut kill = Command::new("kill");
            let sent = kill.args([&format!("-{name}"), process]).stderr(Stdio::null());
            sent.status().unwrap();
        };
        let first = self.process();
        send(&first.to_string());
        let children = std::fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
        children.split_whitespace().for_each(send);
    }

    /// Ends the server and everything that it was doing, without a word to its clients.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            // SIGQUIT: as after a crash, but for the memory that it shares, which it gives back. One that was frozen goes on for it.
            for signal in ["-CONT", "-QUIT"] {
                let _ = Command::new("kill")
                    .args([signal, &server.id().to_string()])
                    .status();
            }
            let _ = server.wait();
        }
    }

    pub fn address(&self) -> String {
        format!("postgres://unsaid@127.0.0.1:{}/postgres", self.port)
    }

    /// The server's first process, whose children serve the connections.
    #[allow(dead_code)] // the measurements ask
    pub fn process(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    pub fn socket(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// By the name that its certificate is for.
    pub fn address_by_name(&self) -> String {
        format!("postgres://unsaid@localhost:{}/postgres", self.port)
    }

    pub fn authority(&self) -> PathBuf {
        self.files().join("server.crt")
    }

    fn files(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    /// A connection of the test's own.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.address(), tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// The folder of PostgreSQL's programs: the one that `UNSAID_POSTGRES` names, one on the path, or Debian's newest.
fn programs() -> Option<PathBuf> {
    let has_them = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let named = std::env::var_os("UNSAID_POSTGRES").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir(Path::new("/usr/lib/postgresql"));
    let mut debian: Vec<PathBuf> = versions
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .collect();
    debian.sort();
    named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian.into_iter().rev())
        .find(has_them)
}
