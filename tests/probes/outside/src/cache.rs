//! Something that holds memory.

/// Pages that nobody ever throws out.
#[derive(Default)]
pub struct Cache {
    pages: Vec<Box<[u8]>>,
}

impl Cache {
    #[inline(never)]
    pub fn insert(&mut self, number: u64) {
        let page = vec![number as u8; 2048]; // site: page
        self.pages.push(page.into_boxed_slice());
    }

    pub fn len(&self) -> usize {
        self.pages.len()
    }
}
