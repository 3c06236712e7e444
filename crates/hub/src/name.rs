//! Names of repositories.

/// `owner/name`, and perhaps `@revision`: a branch, a tag or a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoName {
    /// `owner/name`.
    pub id: String,
    /// `main` where none is given.
    pub revision: String,
}

impl RepoName {
    /// Reads `owner/name` or `owner/name@revision`; none where `text` can be no such name.
    ///
    /// ```
    /// use hub::name::RepoName;
    ///
    /// let name = RepoName::parse("Qwen/Qwen2.5-VL-3B-Instruct@v1").expect("an id");
    /// assert_eq!((name.id.as_str(), name.revision.as_str()), ("Qwen/Qwen2.5-VL-3B-Instruct", "v1"));
    /// assert_eq!(RepoName::parse("./folder"), None);
    /// ```
    pub fn parse(text: &str) -> Option<Self> {
        let (id, revision) = text.split_once('@').unwrap_or((text, "main"));
        let word = |word: &str| {
            !word.is_empty()
                && !word.starts_with(['.', '-'])
                && !word.contains("..")
                && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        // The cache's folders have `--` for the slash: with one in a name two repositories would share a folder. The
        // hub has no such names.
        let part = |part: &str| word(part) && !part.contains("--");
        let (owner, name) = id.split_once('/')?;
        // Pull requests are `refs/pr/3`.
        let sound = part(owner) && part(name) && !revision.is_empty() && revision.split('/').all(word);
        sound.then(|| Self { id: id.into(), revision: revision.into() })
    }

    /// The revision in an address.
    pub(crate) fn revision_in_address(&self) -> String {
        self.revision.replace('/', "%2F")
    }
}

impl std::fmt::Display for RepoName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.revision.as_str() {
            "main" => f.write_str(&self.id),
            revision => write!(f, "{}@{revision}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_from_a_path() {
        let parsed = |text: &str| RepoName::parse(text).map(|name| (name.id, name.revision));
        assert_eq!(parsed("a/b"), Some(("a/b".into(), "main".into())));
        assert_eq!(parsed("a/b@refs/pr/1"), Some(("a/b".into(), "refs/pr/1".into())));
        assert_eq!(parsed("a/b@x--y"), Some(("a/b".into(), "x--y".into())));
        for text in [
            "a--b/c", "a/b--c", "a", "/a/b", "../b", "a/..", "a/b/c", "./a", "a/b@", "a/b@../x", "a b/c", "", "a/b@x y",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
