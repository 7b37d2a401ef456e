//! The tree's promises, on stores in memory, with the operations each tool was seen to make.

mod driver;
mod model;
mod random;
mod refusals;
mod tools;
