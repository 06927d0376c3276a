//! The relay's own key, Ed25519 (RFC 8032): it signs manifests, so that a client that knows its public half takes terms from nobody
//! else.

use std::{fs::File, io::Write, path::Path};

use ed25519_dalek::{Signer, SigningKey};
use unsaid_protocol::{ContentHash, PublicKey};

use crate::secret::{self, SecretError};

/// What is signed is this, then the manifest's bytes (PROTOCOL.md, section 3.1): a signature of a manifest can be none of anything
/// else that a later version signs.
const MANIFEST_CONTEXT: &[u8] = b"unsaid/v1/manifest\0";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be made or read, or others may read it.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The file says something else.
    #[error("{0}: no key of a relay, which is 64 lower-case hexadecimal digits")]
    Content(String),
    /// No random numbers.
    #[error("the operating system gives no random numbers: {0}")]
    Entropy(getrandom::Error),
}

/// The relay's key. It is wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct RelayKey(SigningKey);

impl std::fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RelayKey({})", self.public())
    }
}

impl RelayKey {
    /// Draws a key and keeps it in a new file that only its owner may read.
    ///
    /// # Errors
    /// [`KeyError`]; a file that is there already is never written over.
    pub fn create(path: &Path) -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyError::Entropy)?;
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let text = format!("{}\n", ContentHash::from_bytes(seed)); // 32 bytes in hexadecimal
        let written = options.open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| secret::failed(path, error))?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a key from its file.
    ///
    /// # Errors
    /// [`KeyError`], also where others than the owner may read the file.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let text = secret::read(path)?;
        let seed: ContentHash = text
            .trim()
            .parse()
            .map_err(|_| KeyError::Content(path.display().to_string()))?;
        Ok(Self(SigningKey::from_bytes(seed.as_bytes())))
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// The public half, as clients pin it: 64 lower-case hexadecimal digits.
    pub fn public(&self) -> String {
        self.public_key().to_string()
    }

    /// The signature of a manifest, 128 lower-case hexadecimal digits.
    pub fn sign_manifest(&self, manifest: &[u8]) -> String {
        let signature = self.0.sign(&[MANIFEST_CONTEXT, manifest].concat());
        let [first, second] =
            [signature.r_bytes(), signature.s_bytes()].map(|half| ContentHash::from_bytes(*half));
        format!("{first}{second}")
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Signed by OpenSSL, from the seed of RFC 8032's first test.
    #[test]
    fn a_manifest_is_signed_as_the_vector_says() {
        let vector = include_str!("../../tests/vectors/v1/manifest-signature.json");
        let vector: serde_json::Value = serde_json::from_str(vector).unwrap();
        let text = |name: &str| vector[name].as_str().unwrap();
        let seed: ContentHash = text("seed").parse().unwrap();
        let key = RelayKey(SigningKey::from_bytes(seed.as_bytes()));
        assert_eq!(key.public(), text("public_key"));
        assert_eq!(key.sign_manifest(text("manifest").as_bytes()), text("signature"));
        assert!(!format!("{key:?}").contains(text("seed")), "it is never printed");
    }

    #[test]
    fn a_key_is_its_owners_and_is_never_written_over() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("relay.key");
        let key = RelayKey::create(&path).unwrap();
        assert_eq!(RelayKey::read(&path).unwrap().public(), key.public());
        assert!(matches!(
            RelayKey::create(&path),
            Err(KeyError::Secret(SecretError::File { .. }))
        ));
        assert_eq!(RelayKey::read(&path).unwrap().public(), key.public());
        let another = RelayKey::create(&folder.path().join("other.key")).unwrap();
        assert_ne!(another.public(), key.public());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            assert!(matches!(
                RelayKey::read(&path),
                Err(KeyError::Secret(SecretError::Open(_)))
            ));
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        fs::write(&path, "a key").unwrap();
        assert!(matches!(RelayKey::read(&path), Err(KeyError::Content(_))));
    }
}
