//! Writing a database front to back: a page is written when it is full, its parents after it.
//!
//! ```text
//! pages:  meta meta | leaf leaf .. branch leaf .. branch | leaf (root bucket) | free list
//! ```
//!
//! In memory are the leaf that is being filled and, for each level above, the children that no
//! branch page names yet. The two metas come last, at the front: a file that was not finished is
//! not a database.

use std::io::{self, Seek, SeekFrom, Write};

use super::format::{
    BRANCH, BUCKET_ELEMENT, BUCKET_HEADER, ELEMENT, FREE_LIST, LEAF, Meta, PAGE_BYTES, PAGE_HEADER,
    PageHeader,
};

/// The longest key that bbolt takes.
const KEY_BYTES_MAX: usize = 32 << 10;
/// A branch page has two children or more, whatever their keys' lengths.
const CHILDREN_MIN: usize = 2;

/// Why a database was not written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The file system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It would become longer than it may.
    #[error("the database would be longer than {0} bytes")]
    TooLong(u64),
}

/// Writes one database.
pub struct Writer<W> {
    pages: Pages<W>,
    /// The finished buckets: names and what stands for them.
    buckets: Vec<(Vec<u8>, Vec<u8>)>,
    open: Option<(Vec<u8>, Tree)>,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins at the start of `file`, which is empty. The database will have at most `bytes_max`
    /// bytes.
    pub fn begin(mut file: W, bytes_max: u64) -> Result<Self, WriteError> {
        file.seek(SeekFrom::Start(2 * PAGE_BYTES as u64))?;
        let pages = Pages { file, next: 2, bytes_max };
        Ok(Self { pages, buckets: Vec::new(), open: None })
    }

    /// Begins a bucket; the one before is finished.
    pub fn bucket(&mut self, name: &[u8]) -> Result<(), WriteError> {
        self.end_bucket()?;
        self.open = Some((name.to_vec(), Tree::default()));
        Ok(())
    }

    /// Adds a pair to the bucket begun last. Its key is greater than those before.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), WriteError> {
        let (_, tree) = self.open.as_mut().expect("a bucket was begun");
        tree.put(&mut self.pages, 0, key, value)
    }

    /// Finishes the database and gives its length in bytes. Nothing is synced.
    pub fn finish(mut self) -> Result<(W, u64), WriteError> {
        self.end_bucket()?;
        self.buckets.sort();
        let mut tree = Tree::default();
        for (name, value) in &self.buckets {
            tree.put(&mut self.pages, BUCKET_ELEMENT, name, value)?;
        }
        let root = match tree.finish(&mut self.pages)? {
            Some(root) => root,
            None => self.pages.write(LEAF, 0, &[])?,
        };
        let free_list = self.pages.write(FREE_LIST, 0, &[])?;
        let end = self.pages.next;
        for page in 0..2 {
            let meta = Meta { page_bytes: PAGE_BYTES, root, free_list, end, txid: page };
            self.pages.file.seek(SeekFrom::Start(page * PAGE_BYTES as u64))?;
            let mut bytes = meta.encode(page);
            bytes.resize(PAGE_BYTES, 0);
            self.pages.file.write_all(&bytes)?;
        }
        self.pages.file.flush()?;
        Ok((self.pages.file, end * PAGE_BYTES as u64))
    }

    fn end_bucket(&mut self) -> Result<(), WriteError> {
        let Some((name, tree)) = self.open.take() else { return Ok(()) };
        let root = tree.finish(&mut self.pages)?;
        let mut value = vec![0; BUCKET_HEADER];
        match root {
            Some(root) => value[..8].copy_from_slice(&root.to_le_bytes()),
            // An empty bucket has no page of its own, but one within its value.
            None => {
                let inline = PageHeader { id: 0, flags: LEAF, count: 0, overflow: 0 };
                value.extend_from_slice(&inline.encode());
            }
        }
        self.buckets.push((name, value));
        Ok(())
    }
}

/// The pages written so far.
struct Pages<W> {
    file: W,
    next: u64,
    bytes_max: u64,
}

impl<W: Write> Pages<W> {
    /// Writes a page with this content after its header, and gives its number.
    fn write(&mut self, flags: u16, count: usize, content: &[u8]) -> Result<u64, WriteError> {
        let length = (PAGE_HEADER + content.len()).div_ceil(PAGE_BYTES);
        let id = self.next;
        self.next += length as u64;
        if self.next * PAGE_BYTES as u64 > self.bytes_max {
            return Err(WriteError::TooLong(self.bytes_max));
        }
        let count = u16::try_from(count).expect("a page has room for fewer elements");
        let overflow = u32::try_from(length - 1).expect("a pair is bounded by a request");
        let header = PageHeader { id, flags, count, overflow };
        self.file.write_all(&header.encode())?;
        self.file.write_all(content)?;
        let rest = length * PAGE_BYTES - PAGE_HEADER - content.len();
        self.file.write_all(&[0; PAGE_BYTES][..rest])?;
        Ok(id)
    }
}

/// A B+ tree that grows at its right edge.
#[derive(Default)]
struct Tree {
    leaf: Leaf,
    last_key: Option<Vec<u8>>,
    /// Children without a parent, by level; the leaves first.
    levels: Vec<Vec<Child>>,
}

struct Child {
    first_key: Vec<u8>,
    page: u64,
}

impl Tree {
    fn put<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        flags: u32,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), WriteError> {
        assert!(!key.is_empty() && key.len() <= KEY_BYTES_MAX, "bbolt takes no such key");
        assert!(self.last_key.as_deref().is_none_or(|last| last < key), "keys come in order");
        self.last_key = Some(key.to_vec());
        if !self.leaf.has_room(key, value) {
            self.end_leaf(pages)?;
        }
        self.leaf.put(flags, key, value);
        Ok(())
    }

    /// The root page; none if the tree is empty.
    fn finish<W: Write>(mut self, pages: &mut Pages<W>) -> Result<Option<u64>, WriteError> {
        if !self.leaf.elements.is_empty() {
            self.end_leaf(pages)?;
        }
        let mut level = 0;
        while level < self.levels.len() {
            let is_top = level + 1 == self.levels.len();
            if let ([only], true) = (&self.levels[level][..], is_top) {
                return Ok(Some(only.page));
            }
            let children = std::mem::take(&mut self.levels[level]);
            let fitting = fitting(&children);
            // At most one more than fit on a page: two pages then, none with a single child.
            let middle = if children.len() > fitting { children.len() / 2 } else { 0 };
            let (first, second) = children.split_at(middle);
            for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
                self.write_branch(pages, level, part)?;
            }
            level += 1;
        }
        Ok(None)
    }

    fn end_leaf<W: Write>(&mut self, pages: &mut Pages<W>) -> Result<(), WriteError> {
        let leaf = std::mem::take(&mut self.leaf);
        let page = pages.write(LEAF, leaf.elements.len(), &leaf.content())?;
        self.add_child(pages, 0, Child { first_key: leaf.first_key, page })
    }

    fn add_child<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        child: Child,
    ) -> Result<(), WriteError> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        self.levels[level].push(child);
        let fitting = fitting(&self.levels[level]);
        // What stays behind makes a page, too.
        if self.levels[level].len() < fitting + CHILDREN_MIN {
            return Ok(());
        }
        let rest = self.levels[level].split_off(fitting);
        let full = std::mem::replace(&mut self.levels[level], rest);
        self.write_branch(pages, level, &full)
    }

    fn write_branch<W: Write>(
        &mut self,
        pages: &mut Pages<W>,
        level: usize,
        children: &[Child],
    ) -> Result<(), WriteError> {
        let page = pages.write(BRANCH, children.len(), &branch(children))?;
        let first_key = children[0].first_key.clone();
        self.add_child(pages, level + 1, Child { first_key, page })
    }
}

/// How many children fit on one branch page.
fn fitting(children: &[Child]) -> usize {
    let mut length = PAGE_HEADER;
    let fits = children.iter().take_while(|child| {
        length += ELEMENT + child.first_key.len();
        length <= PAGE_BYTES
    });
    fits.count().max(CHILDREN_MIN)
}

/// The content of a branch page.
fn branch(children: &[Child]) -> Vec<u8> {
    let (mut elements, mut keys) = (Vec::new(), Vec::new());
    for (number, child) in children.iter().enumerate() {
        // Where the key begins, counted from its element.
        let position = (children.len() - number) * ELEMENT + keys.len();
        elements.extend_from_slice(&(position as u32).to_le_bytes());
        elements.extend_from_slice(&(child.first_key.len() as u32).to_le_bytes());
        elements.extend_from_slice(&child.page.to_le_bytes());
        keys.extend_from_slice(&child.first_key);
    }
    elements.extend_from_slice(&keys);
    elements
}

/// The leaf page that is being filled.
#[derive(Default)]
struct Leaf {
    first_key: Vec<u8>,
    /// Flags, length of the key, length of the value.
    elements: Vec<(u32, u32, u32)>,
    data: Vec<u8>,
}

impl Leaf {
    fn has_room(&self, key: &[u8], value: &[u8]) -> bool {
        let elements = (self.elements.len() + 1) * ELEMENT;
        let length = PAGE_HEADER + elements + self.data.len() + key.len() + value.len();
        self.elements.is_empty() || length <= PAGE_BYTES
    }

    fn put(&mut self, flags: u32, key: &[u8], value: &[u8]) {
        if self.elements.is_empty() {
            self.first_key = key.to_vec();
        }
        let value_length = u32::try_from(value.len()).expect("a value is bounded by a request");
        self.elements.push((flags, key.len() as u32, value_length));
        self.data.extend_from_slice(key);
        self.data.extend_from_slice(value);
    }

    fn content(&self) -> Vec<u8> {
        let count = self.elements.len();
        let mut content = Vec::with_capacity(count * ELEMENT + self.data.len());
        let mut before = 0;
        for (number, (flags, key, value)) in self.elements.iter().enumerate() {
            let position = ((count - number) * ELEMENT) as u32 + before;
            for field in [*flags, position, *key, *value] {
                content.extend_from_slice(&field.to_le_bytes());
            }
            before += key + value;
        }
        content.extend_from_slice(&self.data);
        content
    }
}
