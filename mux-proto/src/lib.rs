//! Sans-IO multiplexing core.
