//! Docker daemons: the only module that knows bollard.
