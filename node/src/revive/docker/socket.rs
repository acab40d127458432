//! Finds out why an engine's socket can't be used, for a message to the operator.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::net::UnixStream;

/// The fault of the socket at `path` and its remedy; `None` if the socket can be opened.
pub(super) async fn obstacle(path: &Path) -> Option<String> {
    let error = UnixStream::connect(path).await.err()?;
    let shown = path.display();
    Some(match (error.kind(), fs::metadata(path)) {
        (ErrorKind::PermissionDenied, Ok(socket)) => {
            let group = socket.gid();
            format!(
                "{shown} may be opened by group {group}, which this node is not in: \
                 set DOCKER_GID={group} for docker compose, or add the group to the node's"
            )
        }
        (ErrorKind::NotFound, _) => {
            format!("there is no {shown}: mount the engine's socket, or set docker_host")
        }
        (ErrorKind::ConnectionRefused, Ok(_)) => format!(
            "nobody listens at {shown}: start the engine; if it was started anew, this container \
             has its old socket and must be made anew, too"
        ),
        (ErrorKind::WouldBlock, _) => {
            format!("the engine at {shown} hangs: it takes no more connections; start it anew")
        }
        _ => format!("{shown}: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test]
    async fn what_is_wrong_is_told_with_what_helps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("engine.sock");
        assert!(obstacle(&path).await.unwrap().contains("mount the engine's socket"));
        let listener = UnixListener::bind(&path).unwrap();
        assert_eq!(obstacle(&path).await, None);
        // Connections that the listener does not accept fill its queue.
        let mut why = None;
        while why.is_none() {
            why = obstacle(&path).await;
        }
        assert!(why.unwrap().contains("hangs"));
        drop(listener);
        assert!(obstacle(&path).await.unwrap().contains("nobody listens"));
    }
}
