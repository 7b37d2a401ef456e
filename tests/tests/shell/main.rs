//! The shell feels at home: the docker environment, the prompt, shells that pcocc starts, and completion, in real
//! shells and, where somebody would see it, in a real terminal. No daemon is needed: the jobs are records.

mod complete;
mod environment;
mod prompt;
mod started;
