//! Reading a database of unknown origin, pair by pair.
//!
//! A page is read when a walk reaches it, checked against everything that leads to it (its number,
//! its kind, the bounds that its parents' keys set), and let go when the walk leaves it. A page that
//! a walk has seen is not seen again, so every walk ends.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;

use super::format::{
    BRANCH, BUCKET_ELEMENT, BUCKET_HEADER, BoltError, ELEMENT, LEAF, Meta, PAGE_HEADER, PageHeader,
    u32_at, u64_at,
};

/// A page with all that belongs to it is no longer: etcd's values are bounded by its requests.
const PAGE_BYTES_MAX: u64 = 256 << 20;
/// No tree of 2^64 pages is deeper.
const DEPTH_MAX: usize = 64;

/// Bytes that can be read anywhere.
pub trait Source {
    /// How many there are.
    fn length(&self) -> io::Result<u64>;
    /// Fills `buffer` from `offset`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

impl Source for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }
}

/// A database that is open for reading.
pub struct Reader<S> {
    file: Arc<S>,
    meta: Meta,
}

impl<S: Source> Reader<S> {
    /// Opens a database after a look at its head.
    pub fn open(file: S) -> Result<Self, BoltError> {
        let meta = Meta::find(&file)?;
        let found = file.length()?;
        let needed = meta.end.saturating_mul(meta.page_bytes as u64);
        if found < needed {
            return Err(BoltError::Short { found, needed });
        }
        Ok(Self { file: Arc::new(file), meta })
    }

    /// The length of the database: the file may be longer.
    pub fn bytes(&self) -> u64 {
        self.meta.end * self.meta.page_bytes as u64
    }

    /// The names of the buckets, in order. Pairs beside them are passed over, as in bbolt.
    pub fn buckets(&self) -> Result<Vec<Vec<u8>>, BoltError> {
        let names = self.root().filter_map(|element| match element {
            Ok(element) if element.flags & BUCKET_ELEMENT != 0 => Some(Ok(element.key.to_vec())),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        });
        names.collect()
    }

    /// The pairs of a bucket; none if there is no such bucket.
    pub fn bucket(&self, name: &[u8]) -> Result<Option<Bucket<S>>, BoltError> {
        for element in self.root() {
            let element = element?;
            if element.key == name && element.flags & BUCKET_ELEMENT != 0 {
                let walk = self.walk_of(&element)?;
                return Ok(Some(Bucket { walk }));
            }
        }
        Ok(None)
    }

    fn root(&self) -> Walk<S> {
        Walk::new(self.file.clone(), self.meta, Start::Page(self.meta.root))
    }

    fn walk_of(&self, element: &Element) -> Result<Walk<S>, BoltError> {
        let value = &element.value;
        let wrong = |reason| page_error(element.page, reason);
        if value.len() < BUCKET_HEADER {
            return Err(wrong("a bucket without a header"));
        }
        let start = match u64_at(value, 0) {
            0 if value.len() >= BUCKET_HEADER + PAGE_HEADER => {
                Start::Inline(element.page, value.slice(BUCKET_HEADER..))
            }
            0 => return Err(wrong("a bucket without a page")),
            page => Start::Page(page),
        };
        Ok(Walk::new(self.file.clone(), self.meta, start))
    }
}

/// A key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// The pairs of one bucket, in order of their keys; nothing follows an error.
pub struct Bucket<S> {
    walk: Walk<S>,
}

impl<S: Source> Iterator for Bucket<S> {
    type Item = Result<Pair, BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.walk.next()? {
                // bbolt gives a bucket within a bucket no value; etcd has none.
                Ok(element) if element.flags & BUCKET_ELEMENT != 0 => {}
                Ok(Element { key, value, .. }) => return Some(Ok(Pair { key, value })),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// What a leaf holds.
struct Element {
    page: u64,
    flags: u32,
    key: Bytes,
    value: Bytes,
}

/// Where a walk begins.
enum Start {
    Page(u64),
    /// Within the value of an element of this page.
    Inline(u64, Bytes),
    Over,
}

/// A walk through a tree.
struct Walk<S> {
    file: Arc<S>,
    meta: Meta,
    start: Start,
    path: Vec<Step>,
    /// One bit a page.
    seen: Vec<u64>,
    last_key: Option<Bytes>,
}

/// A page of the path, and how far it has been gone through.
struct Step {
    page: Page,
    next: usize,
    /// Keys are below this one.
    bound: Option<Bytes>,
}

impl<S: Source> Walk<S> {
    fn new(file: Arc<S>, meta: Meta, start: Start) -> Self {
        Self { file, meta, start, path: Vec::new(), seen: Vec::new(), last_key: None }
    }

    fn begin(&mut self) -> Result<(), BoltError> {
        let page = match std::mem::replace(&mut self.start, Start::Over) {
            Start::Page(id) => self.read(id)?,
            Start::Inline(id, bytes) => {
                let page = Page::parse(id, bytes)?;
                if page.is_branch {
                    return Err(page.wrong("a bucket within its parent's page has branches"));
                }
                page
            }
            Start::Over => return Ok(()),
        };
        self.path.push(Step { page, next: 0, bound: None });
        Ok(())
    }

    fn advance(&mut self) -> Result<Option<Element>, BoltError> {
        self.begin()?;
        while let Some(step) = self.path.last_mut() {
            if step.next == step.page.count {
                self.path.pop();
                continue;
            }
            let at = step.next;
            step.next += 1;
            if !step.page.is_branch {
                let (element, bound) = (step.page.element(at)?, step.bound.clone());
                return self.check(element, bound).map(Some);
            }
            let (key, child) = step.page.child(at)?;
            let bound = match at + 1 < step.page.count {
                true => Some(step.page.child(at + 1)?.0),
                false => step.bound.clone(),
            };
            if self.last_key.as_ref().is_some_and(|last| *last >= key) {
                return Err(step.page.wrong("a branch begins within the one before"));
            }
            self.descend(&key, child, bound)?;
        }
        Ok(None)
    }

    fn descend(&mut self, key: &Bytes, id: u64, bound: Option<Bytes>) -> Result<(), BoltError> {
        if self.path.len() == DEPTH_MAX {
            return Err(page_error(id, "it lies too deep"));
        }
        let page = self.read(id)?;
        if page.count > 0 && page.key(0)? < *key {
            return Err(page.wrong("it begins before its parent says"));
        }
        self.path.push(Step { page, next: 0, bound });
        Ok(())
    }

    fn check(&mut self, element: Element, bound: Option<Bytes>) -> Result<Element, BoltError> {
        let ordered = self.last_key.as_ref().is_none_or(|last| *last < element.key);
        if !ordered || bound.is_some_and(|bound| element.key >= bound) {
            return Err(page_error(element.page, "its keys are out of order"));
        }
        self.last_key = Some(element.key.clone());
        Ok(element)
    }

    fn read(&mut self, id: u64) -> Result<Page, BoltError> {
        if id < 2 || id >= self.meta.end {
            return Err(page_error(id, "it is outside the database"));
        }
        let page_bytes = self.meta.page_bytes as u64;
        let mut head = [0; PAGE_HEADER];
        self.file.read_exact_at(&mut head, id * page_bytes)?;
        let header = PageHeader::decode(&head);
        if header.id != id {
            return Err(page_error(id, "it says that it is another page"));
        }
        let pages = u64::from(header.overflow) + 1;
        if pages > self.meta.end - id || pages * page_bytes > PAGE_BYTES_MAX {
            return Err(page_error(id, "its length makes no sense"));
        }
        for page in id..id + pages {
            self.see(page)?;
        }
        let mut bytes = vec![0; (pages * page_bytes) as usize];
        self.file.read_exact_at(&mut bytes, id * page_bytes)?;
        Page::parse(id, bytes.into())
    }

    fn see(&mut self, page: u64) -> Result<(), BoltError> {
        let (word, bit) = ((page / 64) as usize, 1 << (page % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            return Err(page_error(page, "more than one page leads to it"));
        }
        self.seen[word] |= bit;
        Ok(())
    }
}

impl<S: Source> Iterator for Walk<S> {
    type Item = Result<Element, BoltError>;

    fn next(&mut self) -> Option<Self::Item> {
        let element = self.advance();
        if element.is_err() {
            self.path.clear();
            self.start = Start::Over;
        }
        element.transpose()
    }
}

/// A page in memory; its elements are checked as they are read.
struct Page {
    id: u64,
    is_branch: bool,
    count: usize,
    bytes: Bytes,
}

impl Page {
    fn parse(id: u64, bytes: Bytes) -> Result<Self, BoltError> {
        let header = PageHeader::decode(&bytes);
        let is_branch = match header.flags {
            BRANCH => true,
            LEAF => false,
            flags => return Err(page_error(id, format!("it is of an unknown kind {flags:#x}"))),
        };
        let page = Self { id, is_branch, count: usize::from(header.count), bytes };
        if PAGE_HEADER + page.count * ELEMENT > page.bytes.len() {
            return Err(page.wrong("it has more elements than room"));
        }
        if is_branch && page.count == 0 {
            return Err(page.wrong("it is a branch without children"));
        }
        Ok(page)
    }

    fn element(&self, number: usize) -> Result<Element, BoltError> {
        let at = PAGE_HEADER + number * ELEMENT;
        let field = |number: usize| u32_at(&self.bytes, at + 4 * number);
        let key = self.cut(at, field(1), 0, field(2))?;
        let value = self.cut(at, field(1), field(2), field(3))?;
        if key.is_empty() {
            return Err(self.wrong("it has an empty key"));
        }
        Ok(Element { page: self.id, flags: field(0), key, value })
    }

    fn child(&self, number: usize) -> Result<(Bytes, u64), BoltError> {
        let at = PAGE_HEADER + number * ELEMENT;
        let key = self.cut(at, u32_at(&self.bytes, at), 0, u32_at(&self.bytes, at + 4))?;
        Ok((key, u64_at(&self.bytes, at + 8)))
    }

    fn key(&self, number: usize) -> Result<Bytes, BoltError> {
        if self.is_branch {
            return Ok(self.child(number)?.0);
        }
        Ok(self.element(number)?.key)
    }

    /// `length` bytes, `position` and `skip` after the element that begins at `element`.
    fn cut(
        &self,
        element: usize,
        position: u32,
        skip: u32,
        length: u32,
    ) -> Result<Bytes, BoltError> {
        let start = element as u64 + u64::from(position) + u64::from(skip);
        let end = start + u64::from(length);
        if end > self.bytes.len() as u64 {
            return Err(self.wrong("an element reaches beyond it"));
        }
        Ok(self.bytes.slice(start as usize..end as usize))
    }

    fn wrong(&self, reason: impl Into<String>) -> BoltError {
        page_error(self.id, reason)
    }
}

fn page_error(page: u64, reason: impl Into<String>) -> BoltError {
    BoltError::Page { page, reason: reason.into() }
}
