//! Docker archives (docker save files).
