//! How long daemons are waited for, and what is said meanwhile.

use std::sync::{Arc, Mutex};

use super::faults::load;
use pcocc_core::cancel::Cancel;
use pcocc_core::progress::{Event, Progress, Reporter};
use pcocc_image::transfer::Context;

#[test]
fn a_load_says_that_docker_unpacks() {
    #[derive(Default)]
    struct Stages(Mutex<Vec<String>>);
    impl Progress for Stages {
        fn event(&self, event: Event) {
            if let Event::Stage(text) = event {
                self.0.lock().unwrap().push(text);
            }
        }
    }
    let stages = Arc::new(Stages::default());
    let context = Context {
        progress: Reporter::new(Arc::clone(&stages) as Arc<dyn Progress>),
        cancel: Cancel::new(),
    };
    load(&context, |_| false).unwrap();
    assert_eq!(*stages.0.lock().unwrap(), ["Docker unpacks the layers"]);
}
