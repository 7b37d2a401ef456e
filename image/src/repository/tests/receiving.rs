//! Images received by the sink.
