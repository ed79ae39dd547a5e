use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

use super::{AdminError, AdminFrames, Channel};
use crate::data_dir::{DataDir, DataDirError, DirLock};

/// Longest path of a Unix socket on Linux: `sun_path` has 108 bytes, the last of them zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// The listening end of a node's command channel.
#[derive(Debug)]
pub struct AdminListener {
    listener: UnixListener,
    path: PathBuf,
}

impl AdminListener {
    /// Listens at `node.sock`. Whoever holds the lock knows that a socket that is there already is left over.
    ///
    /// # Errors
    /// [`DataDirError::Io`].
    pub fn bind(dir: &DataDir, _lock: &DirLock) -> Result<Self, DataDirError> {
        let path = dir.socket_file();
        let fresh = dir.path().join("node.new");
        // Bound under another name, restricted, then named: nobody can connect before the mode is right.
        let listener = remove(&fresh)
            .and_then(|()| reachable(dir.path(), "node.new"))
            .and_then(|(place, _open)| UnixListener::bind(place))
            .and_then(|listener| {
                fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
                fs::rename(&fresh, &path)?;
                Ok(listener)
            })
            .map_err(|source| DataDirError::Io {
                path: path.clone(),
                source,
            })?;
        Ok(Self { listener, path })
    }

    /// The next connection of a process of the same user.
    ///
    /// # Errors
    /// [`AdminError::Peer`], [`AdminError::Io`].
    pub async fn accept(&self) -> Result<AdminFrames, AdminError> {
        let (stream, _) = self.listener.accept().await?;
        check_peer(&stream)?;
        let (read, write) = stream.into_split();
        Ok(AdminFrames::new(read, write))
    }
}

impl Drop for AdminListener {
    fn drop(&mut self) {
        // A socket that stays is harmless: nobody answers, and the next node replaces it.
        let _ = remove(&self.path);
    }
}

/// The calling end.
#[derive(Clone, Debug)]
pub struct AdminClient {
    dir: PathBuf,
}

impl AdminClient {
    /// Finds a running node; `None` where no process answers.
    ///
    /// # Errors
    /// [`AdminError`] where one is there and cannot be used.
    pub async fn connect(dir: &DataDir) -> Result<Option<Self>, AdminError> {
        let client = Self {
            dir: dir.path().to_owned(),
        };
        Ok(client.try_channel().await?.map(|_| client))
    }

    /// A connection of its own.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn channel(&self) -> Result<Channel, AdminError> {
        self.try_channel().await?.ok_or(AdminError::Closed)
    }

    async fn try_channel(&self) -> Result<Option<Channel>, AdminError> {
        let (place, _open) = reachable(&self.dir, "node.sock")?;
        match UnixStream::connect(place).await {
            Ok(stream) => {
                check_peer(&stream)?;
                let (read, write) = stream.into_split();
                Ok(Some(Channel::new(AdminFrames::new(read, write))))
            }
            Err(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(None),
                _ => Err(error.into()),
            },
        }
    }
}

/// A path by which the socket `name` in `dir` can be named in `sun_path`. Where the plain one is too long, it leads through the open directory in
/// `/proc`: no second place to put sockets, hence none that others could occupy first.
fn reachable(dir: &Path, name: &str) -> io::Result<(PathBuf, Option<File>)> {
    let plain = dir.join(name);
    if plain.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((plain, None));
    }
    let open = File::open(dir)?;
    let short = PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd()));
    Ok((short, Some(open)))
}

/// The kernel says who opened the other end; the file's mode says the same once more.
fn check_peer(stream: &UnixStream) -> Result<(), AdminError> {
    let found = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if found == own {
        Ok(())
    } else {
        Err(AdminError::Peer { found, own })
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
