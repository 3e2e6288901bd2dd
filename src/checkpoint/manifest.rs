//! Manifests as they are stored.
