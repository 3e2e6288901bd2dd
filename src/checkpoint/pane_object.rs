//! Pane objects as they are stored.
