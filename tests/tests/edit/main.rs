//! Images changed and built in docker: `pcocc docker edit` and `pcocc docker build`, as the manual has
//! them, typed into a terminal.

mod building;
mod buildkit;
mod editing;
mod failing;
mod interrupted;
mod sessions;
mod site;
