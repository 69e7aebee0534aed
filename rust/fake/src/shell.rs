//! A shell small enough to be right: words, quotes, `$NAME`, `$?`, `;`, newline, `&&`, `||`, `>`, `>>`, `>&2`, `2>&1`.

/// A parsed script: commands with the condition under which each runs.
pub type Script = Vec<(Condition, Command)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    Always,
    /// After `&&`.
    Success,
    /// After `||`.
    Failure,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Command {
    pub words: Vec<Word>,
    pub stdout: Target,
    pub stderr: Target,
}

/// Pieces of text and variables, joined when the command runs.
pub type Word = Vec<Piece>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Variable(String),
    /// `$?`.
    Status,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Target {
    /// Where it went anyway.
    #[default]
    Same,
    Stdout,
    Stderr,
    File {
        path: Word,
        append: bool,
    },
}

/// Parses a script. What this shell does not know is an error, never a guess.
pub fn parse(text: &str) -> Result<Script, String> {
    let mut parser = Parser { rest: text.chars().peekable() };
    let mut script = Script::new();
    let mut condition = Condition::Always;
    loop {
        let command = parser.command()?;
        let separator = parser.separator()?;
        if !command.words.is_empty() {
            script.push((condition, command));
        } else if condition != Condition::Always || matches!(separator, Some(Condition::Success | Condition::Failure)) {
            return Err("syntax error: a command is missing".into());
        }
        match separator {
            Some(next) => condition = next,
            None => return Ok(script),
        }
    }
}

struct Parser<'a> {
    rest: std::iter::Peekable<std::str::Chars<'a>>,
}

impl Parser<'_> {
    fn skip_blanks(&mut self) {
        while self.rest.next_if(|c| *c == ' ' || *c == '\t').is_some() {}
        if self.rest.peek() == Some(&'#') {
            while self.rest.next_if(|c| *c != '\n').is_some() {}
        }
    }

    fn separator(&mut self) -> Result<Option<Condition>, String> {
        let twice = |parser: &mut Self, c: char| parser.rest.next_if_eq(&c).is_some();
        match self.rest.next() {
            None => Ok(None),
            Some(';' | '\n') => Ok(Some(Condition::Always)),
            Some('&') if twice(self, '&') => Ok(Some(Condition::Success)),
            Some('|') if twice(self, '|') => Ok(Some(Condition::Failure)),
            Some(other) => Err(format!("`{other}` is not understood by the in-memory shell")),
        }
    }

    fn command(&mut self) -> Result<Command, String> {
        let mut command = Command::default();
        loop {
            self.skip_blanks();
            match self.rest.peek() {
                None | Some(';' | '\n' | '&' | '|') => return Ok(command),
                Some('>') => command.stdout = self.redirect()?,
                Some('<' | '(' | ')' | '`' | '{' | '}') => {
                    return Err("redirected input and groups are not understood by the in-memory shell".into());
                }
                Some(_) => {
                    let word = self.word()?;
                    let descriptor = match word.as_slice() {
                        [Piece::Text(text)] if text == "2" || text == "1" => Some(text == "2"),
                        _ => None,
                    };
                    match (descriptor, self.rest.peek()) {
                        (Some(true), Some('>')) => command.stderr = self.redirect()?,
                        (Some(false), Some('>')) => command.stdout = self.redirect()?,
                        _ => command.words.push(word),
                    }
                }
            }
        }
    }

    fn redirect(&mut self) -> Result<Target, String> {
        self.rest.next();
        if self.rest.next_if_eq(&'&').is_some() {
            return match self.rest.next() {
                Some('1') => Ok(Target::Stdout),
                Some('2') => Ok(Target::Stderr),
                _ => Err("only >&1 and >&2 are understood by the in-memory shell".into()),
            };
        }
        let append = self.rest.next_if_eq(&'>').is_some();
        self.skip_blanks();
        let path = self.word()?;
        if path.is_empty() {
            Err("syntax error: a file name is missing".into())
        } else {
            Ok(Target::File { path, append })
        }
    }

    fn word(&mut self) -> Result<Word, String> {
        let mut word = Word::new();
        let mut text = String::new();
        let mut quoted = false;
        while let Some(&c) = self.rest.peek() {
            match c {
                ' ' | '\t' | '\n' | ';' | '&' | '|' | '>' | '<' | '(' | ')' => break,
                '\'' => {
                    quoted = true;
                    self.rest.next();
                    self.single(&mut text)?;
                }
                '"' => {
                    quoted = true;
                    self.rest.next();
                    self.double(&mut word, &mut text)?;
                }
                '\\' => {
                    self.rest.next();
                    text.extend(self.rest.next());
                }
                '$' => self.variable(&mut word, &mut text)?,
                '`' => return Err("command substitution is not understood by the in-memory shell".into()),
                _ => text.extend(self.rest.next()),
            }
        }
        // A quoted word is one even when it expands to nothing.
        if !text.is_empty() || quoted {
            word.push(Piece::Text(text));
        }
        Ok(word)
    }

    fn single(&mut self, text: &mut String) -> Result<(), String> {
        for c in self.rest.by_ref() {
            if c == '\'' {
                return Ok(());
            }
            text.push(c);
        }
        Err("syntax error: unterminated quote".into())
    }

    fn double(&mut self, word: &mut Word, text: &mut String) -> Result<(), String> {
        while let Some(&c) = self.rest.peek() {
            match c {
                '"' => {
                    self.rest.next();
                    return Ok(());
                }
                '$' => self.variable(word, text)?,
                '\\' => {
                    self.rest.next();
                    match self.rest.next() {
                        Some(c @ ('"' | '\\' | '$' | '`')) => text.push(c),
                        Some(c) => text.extend(['\\', c]),
                        None => break,
                    }
                }
                _ => text.extend(self.rest.next()),
            }
        }
        Err("syntax error: unterminated quote".into())
    }

    fn variable(&mut self, word: &mut Word, text: &mut String) -> Result<(), String> {
        self.rest.next();
        let piece = match self.rest.peek() {
            Some('?') => {
                self.rest.next();
                Piece::Status
            }
            Some('{') => {
                self.rest.next();
                let name = self.name();
                if self.rest.next() != Some('}') || name.is_empty() {
                    return Err("only ${NAME} is understood by the in-memory shell".into());
                }
                Piece::Variable(name)
            }
            Some(c) if c.is_ascii_alphabetic() || *c == '_' => Piece::Variable(self.name()),
            Some('(' | '$' | '#' | '@' | '*') => {
                return Err("this use of `$` is not understood by the in-memory shell".into());
            }
            _ => {
                text.push('$');
                return Ok(());
            }
        };
        if !text.is_empty() {
            word.push(Piece::Text(std::mem::take(text)));
        }
        word.push(piece);
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(c);
        }
        name
    }
}
