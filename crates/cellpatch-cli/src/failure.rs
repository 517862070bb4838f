//! Errors as the user meets them: what happened, why, what to do, and the exit code.

use std::fmt::Write as _;

use cellpatch_data::ErrorCategory;

/// A command that could not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What happened, and where.
    message: String,
    /// Underlying reasons, outermost first.
    causes: Vec<String>,
    /// What to do next.
    help: Option<String>,
    category: Category,
}

/// Decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Category {
    Usage,
    Input,
    Environment,
    /// Ended on request, with a checkpoint.
    Interrupted,
}

impl Category {
    /// 2 usage, 3 bad input, 4 environment, 130 interrupted.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Usage => 2,
            Self::Input => 3,
            Self::Environment => 4,
            Self::Interrupted => 130,
        }
    }

    /// The category of a process that ended with an exit code; what is not one of ours, such as a panic's, is the environment's.
    pub(crate) fn of_exit_code(code: u8) -> Self {
        let all = [Self::Usage, Self::Input, Self::Environment, Self::Interrupted];
        all.into_iter().find(|category| category.exit_code() == code).unwrap_or(Self::Environment)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Input => "input",
            Self::Environment => "environment",
            Self::Interrupted => "interrupted",
        }
    }
}

impl From<ErrorCategory> for Category {
    fn from(category: ErrorCategory) -> Self {
        match category {
            ErrorCategory::Usage => Self::Usage,
            ErrorCategory::Input => Self::Input,
            ErrorCategory::Environment => Self::Environment,
        }
    }
}

impl Failure {
    pub(crate) fn new(category: Category, message: impl Into<String>) -> Self {
        Self { message: message.into(), causes: Vec::new(), help: None, category }
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// The same, said of one thing among several, such as a file.
    pub(crate) fn of(mut self, what: impl std::fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    fn from_error(error: &dyn std::error::Error, help: Option<String>, category: Category) -> Self {
        let message = error.to_string();
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if text != message && causes.last() != Some(&text) {
                causes.push(text);
            }
            source = cause.source();
        }
        Self { message, causes, help, category }
    }

    pub(crate) fn category(&self) -> Category {
        self.category
    }

    /// The text for a terminal.
    pub(crate) fn render(&self) -> String {
        let mut text = match self.category {
            Category::Interrupted => self.message.clone(),
            _ => format!("error: {}", self.message),
        };
        for cause in &self.causes {
            let _ = write!(text, "\n  because: {cause}");
        }
        if let Some(help) = &self.help {
            let _ = write!(text, "\n  help: {help}");
        }
        text
    }

    /// The object for `--json`.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        serde_json::json!({ "error": {
            "category": self.category.name(),
            "message": self.message,
            "causes": self.causes,
            "help": self.help,
        }})
    }
}

impl From<cellpatch_data::Error> for Failure {
    fn from(error: cellpatch_data::Error) -> Self {
        Self::from_error(&error, error.help(), error.category().into())
    }
}

impl From<cellpatch_model::Error> for Failure {
    fn from(error: cellpatch_model::Error) -> Self {
        cellpatch_train::Error::from(error).into()
    }
}

impl From<cellpatch_train::Error> for Failure {
    fn from(error: cellpatch_train::Error) -> Self {
        Self::from_error(&error, error.help(), error.category().into())
    }
}

impl From<cellpatch_spatial::Error> for Failure {
    fn from(error: cellpatch_spatial::Error) -> Self {
        Self::from_error(&error, error.help(), error.category().into())
    }
}

impl From<cellpatch_analysis::Error> for Failure {
    fn from(error: cellpatch_analysis::Error) -> Self {
        Self::from_error(&error, None, Category::Input)
    }
}
