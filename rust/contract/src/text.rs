//! Enums whose values are texts in files and for users.

/// Declares an enum with one text for each value. The value after the semicolon stands for every text that this build
/// does not know.
macro_rules! text_enum {
    (
        $(#[$meta:meta])*
        pub enum $name:ident {
            $($(#[$doc:meta])* $variant:ident = $text:literal),+;
            $(#[$other_doc:meta])* $other:ident = $other_text:literal $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $text)] $variant,)+
            $(#[$other_doc])* #[serde(rename = $other_text, other)] $other,
        }

        impl $name {
            /// The text of this value.
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ $name::$other => $other_text }
            }

            /// The value of this text.
            pub fn parse(text: &str) -> $name {
                match text { $($text => $name::$variant,)+ _ => $name::$other }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

pub(crate) use text_enum;

/// Puts a text that this build does not know in front of the free text of its document, so that users still see it.
pub(crate) fn keep_unknown(text: &str, free: Option<String>) -> Option<String> {
    Some(free.map_or_else(|| text.to_owned(), |free| format!("{text}: {free}")))
}
