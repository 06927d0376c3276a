//! Files that hold a secret: the relay's key, and the operator's token. Only their owner may read them.

use std::{fs::File, io::Read, path::Path};

/// Why a secret is not taken from its file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The file cannot be made or read.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Others than the owner may read it.
    #[error("{0}: others may read this file: chmod 600 it, or make another secret if they did")]
    Open(String),
}

/// The text of a secret's file.
///
/// # Errors
/// [`SecretError`], also where others than the owner may read the file (on Unix).
pub fn read(path: &Path) -> Result<String, SecretError> {
    let mut file = File::open(path).map_err(|error| failed(path, error))?;
    #[cfg(unix)]
    {
        let mode = file
            .metadata()
            .map_err(|error| failed(path, error))?
            .permissions();
        if std::os::unix::fs::PermissionsExt::mode(&mode) & 0o077 != 0 {
            return Err(SecretError::Open(path.display().to_string()));
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text)
        .map_err(|error| failed(path, error))?;
    Ok(text)
}

pub(crate) fn failed(path: &Path, error: std::io::Error) -> SecretError {
    SecretError::File {
        path: path.display().to_string(),
        error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_others_may_read_is_no_secret() {
        use std::{fs, os::unix::fs::PermissionsExt};
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("token");
        assert!(matches!(read(&path), Err(SecretError::File { .. })));
        fs::write(&path, "a token of the tests").unwrap();
        for (mode, secret) in [
            (0o644, false),
            (0o640, false),
            (0o601, false),
            (0o600, true),
            (0o400, true),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            match read(&path) {
                Ok(text) => assert!(secret && text == "a token of the tests", "{mode:o}"),
                Err(error) => assert!(
                    !secret && error.to_string().contains("chmod 600"),
                    "{mode:o} {error}"
                ),
            }
        }
    }
}
