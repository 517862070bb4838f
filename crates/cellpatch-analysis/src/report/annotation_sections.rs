//! The parts of the report of an annotation, each a piece of markup, empty where the run has nothing to show for it.

use super::Fact;
use super::annotation::{
    AnnotationMap, AnnotationReport, CalibrationFacts, GeneScore, MappedCell, ScoredMethod, TrainingCurves,
    Warning,
};
use super::page::{Align, figure, list, page_header, paragraph, section, table};
use super::parts::{configuration, files, loss_series, next_steps};
use crate::figure::{
    Heatmap, LineChart, ReliabilityDiagram, ReliabilityPanel, Scatter, ScatterPoint, Series, SeriesStyle,
};
use crate::metrics::{Calibration, ConfusionMatrix, MeanInterval};
use crate::number::{decimal, grouped, percent, percent_with_decimal, significant};

/// Scores closer than this are the same for all practical purposes.
const SAME: f64 = 0.005;
/// Genes listed for each class.
const MOST_GENES: usize = 12;
/// Names listed in a warning.
const MOST_NAMES: usize = 8;
/// The two kinds of cells on the map of agreement.
const RIGHT: &str = "as labelled";
const WRONG: &str = "otherwise";

/// The whole report.
pub(super) fn all(report: &AnnotationReport) -> String {
    let model = report.model_scores();
    [
        header(report, model.as_ref()),
        section("What to beware of", &list(&report.warnings.iter().map(warning).collect::<Vec<_>>())),
        section("Scores", &scores(model.as_ref(), &report.baselines)),
        section(
            "Which classes are confused",
            &report.confusion.as_ref().map(|matrix| confusion(matrix, report)).unwrap_or_default(),
        ),
        section("Where the cells lie", &report.cell_map.as_ref().map(cell_map).unwrap_or_default()),
        section(
            "How far the confidences can be trusted",
            &report.calibration.as_ref().map(calibration).unwrap_or_default(),
        ),
        section("What the model looked at", &attention(report)),
        section("Training", &training(&report.training)),
        section("Cells", &cells(report)),
        section("Configuration", &configuration(&report.configuration)),
        section("Files of this run", &files(&report.files)),
        section("What to do next", &next_steps(&report.next_steps)),
    ]
    .concat()
}

fn header(report: &AnnotationReport, model: Option<&ScoredMethod>) -> String {
    let mut numbers = Vec::new();
    if let Some(model) = model {
        numbers.push(headline("accuracy", &model.accuracy));
        numbers.push(headline("macro-F1", &model.macro_f1));
    }
    if let Some(best) = best(&report.baselines) {
        numbers.push(headline(&format!("macro-F1 of {}", best.name), &best.macro_f1));
    }
    if let Some(matrix) = &report.confusion {
        numbers.push(Fact::new("test cells", grouped(matrix.n_cells())));
    }
    numbers.extend(report.summary.iter().cloned());
    let lead = model.map_or(String::new(), |model| verdict(model, &report.baselines));
    page_header(&report.title, &lead, &report.command_line, &numbers)
}

/// A score large enough to be seen first, its interval beside its name.
fn headline(name: &str, score: &MeanInterval) -> Fact {
    let name = match score.half_width {
        Some(half_width) => format!("{name} (±\u{a0}{})", decimal(half_width, 3)),
        None => name.to_owned(),
    };
    Fact::new(name, decimal(score.mean, 3))
}

fn best(baselines: &[ScoredMethod]) -> Option<&ScoredMethod> {
    let scored = baselines.iter().filter(|method| method.macro_f1.mean.is_finite());
    scored.max_by(|a, b| a.macro_f1.mean.total_cmp(&b.macro_f1.mean))
}

/// The outcome in a sentence. A difference within either interval is no difference.
fn verdict(model: &ScoredMethod, baselines: &[ScoredMethod]) -> String {
    let share = percent_with_decimal(model.accuracy.mean);
    let Some(best) = best(baselines) else {
        return format!("The model labels {share} of the test cells as they were labelled.");
    };
    let difference = model.macro_f1.mean - best.macro_f1.mean;
    let of = |interval: &MeanInterval| interval.half_width.unwrap_or(0.0);
    let noise = of(&model.macro_f1).max(of(&best.macro_f1)).max(SAME);
    let against = if difference > noise {
        format!("does better than {} (macro-F1 higher by {})", best.name, decimal(difference, 3))
    } else if difference < -noise {
        format!("does not reach {} (macro-F1 lower by {})", best.name, decimal(-difference, 3))
    } else {
        format!("does about as well as {}", best.name)
    };
    format!("The model labels {share} of the test cells as they were labelled, and {against}.")
}

fn warning(warning: &Warning) -> String {
    match warning {
        Warning::RareClasses { names, fewest } => format!(
            "Fewer than {} cells to learn from: {}. What is said of these classes rests on little.",
            grouped(*fewest),
            listed(names)
        ),
        Warning::UnseenClasses { names, n_cells } => format!(
            "Among the test cells but not among the training cells: {}. Whatever the model says of these {} cells is wrong.",
            listed(names),
            grouped(*n_cells)
        ),
        Warning::MissingLabels { n_cells } => {
            format!("{} cells have no label and were left out.", grouped(*n_cells))
        }
        Warning::Other(sentence) => sentence.clone(),
    }
}

/// Some names and how many there are besides.
fn listed(names: &[String]) -> String {
    let shown = names.iter().take(MOST_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        n => format!("{shown} and {} more", grouped(n as u64)),
    }
}

fn scores(model: Option<&ScoredMethod>, baselines: &[ScoredMethod]) -> String {
    let methods: Vec<_> = model.into_iter().chain(baselines).collect();
    if baselines.is_empty() && methods.iter().all(|method| method.note.is_empty()) {
        return String::new();
    }
    let row = |method: &&ScoredMethod| {
        let score = |interval: &MeanInterval| interval.to_text(3);
        [method.name.clone(), score(&method.accuracy), score(&method.macro_f1), method.note.clone()]
    };
    let headings = [
        ("method", Align::Text),
        ("accuracy", Align::Number),
        ("macro-F1", Align::Number),
        ("how", Align::Text),
    ];
    let mut markup = table(headings, &methods.iter().map(row).collect::<Vec<_>>(), false);
    let intervals = methods.iter().flat_map(|method| [&method.accuracy, &method.macro_f1]);
    let n_repeats = intervals.map(|interval| interval.n_repeats).max().unwrap_or(1);
    if n_repeats > 1 {
        markup.push_str(&paragraph(&format!(
            "± is half the 95 % confidence interval of the mean over up to {} repeats (Student's t).",
            grouped(n_repeats as u64)
        )));
    }
    markup
}

fn confusion(matrix: &ConfusionMatrix, report: &AnnotationReport) -> String {
    let caption = "Each row is a true class, coloured by where its cells went and with their number. A model without \
                   fault would be blue along the diagonal and blank elsewhere.";
    let title = format!("{} test cells by true and predicted class", grouped(matrix.n_cells()));
    let mut markup = figure(&Heatmap::of_confusion(title, matrix).to_svg(), caption);
    let mut rows: Vec<_> = matrix
        .classes()
        .into_iter()
        .filter(|class| class.support + class.n_predicted > 0)
        .map(|class| {
            let learned = report.class_cells.iter().find(|cells| cells.class == class.name);
            let if_any = |n: u64, score: f64| if n == 0 { String::new() } else { decimal(score, 3) };
            [
                class.name,
                decimal(class.f1, 3),
                if_any(class.n_predicted, class.precision),
                if_any(class.support, class.recall),
                grouped(class.support),
                learned.map_or(String::new(), |cells| grouped(cells.n_training)),
            ]
        })
        .collect();
    let blank = String::new;
    rows.push([
        "mean over classes".into(),
        decimal(matrix.macro_f1(), 3),
        blank(),
        decimal(matrix.balanced_accuracy(), 3),
        grouped(matrix.n_cells()),
        blank(),
    ]);
    let headings = [
        ("class", Align::Text),
        ("F1", Align::Number),
        ("precision", Align::Number),
        ("recall", Align::Number),
        ("test cells", Align::Number),
        ("training cells", Align::Number),
    ];
    markup.push_str(&table(headings, &rows, true));
    markup.push_str(&paragraph(&format!(
        "Weighted by their cells, the classes have a mean F1 of {}. Classes that are only ever predicted count as 0 in \
         the mean, and those that do not occur at all are left out.",
        decimal(matrix.weighted_f1(), 3)
    )));
    markup
}

fn cell_map(map: &AnnotationMap) -> String {
    let order = by_frequency(&map.cells);
    let scatter = |title: &str, label_name: &str, label: &dyn Fn(&MappedCell) -> Option<String>| Scatter {
        title: title.into(),
        x_name: map.x_name.clone(),
        y_name: map.y_name.clone(),
        label_name: label_name.into(),
        point_name: "cells".into(),
        points: map
            .cells
            .iter()
            .map(|cell| ScatterPoint { x: cell.x, y: cell.y, label: label(cell) })
            .collect(),
        label_order: order.clone(),
        hide_names: false,
    };
    let mut markup = String::new();
    if map.cells.iter().any(|cell| cell.truth.is_some()) {
        let svg = scatter("Cells by their label", "label", &|cell| cell.truth.clone()).to_svg();
        markup.push_str(&figure(&svg, &map.caption));
    }
    if map.cells.iter().any(|cell| cell.predicted.is_some()) {
        let svg =
            scatter("Cells by what was predicted", "prediction", &|cell| cell.predicted.clone()).to_svg();
        markup.push_str(&figure(&svg, "The same cells; a class has the same mark as above."));
    }
    let agreement = |cell: &MappedCell| {
        let (truth, predicted) = (cell.truth.as_ref()?, cell.predicted.as_ref()?);
        Some(if truth == predicted { RIGHT } else { WRONG }.to_owned())
    };
    if map.cells.iter().any(|cell| agreement(cell).is_some()) {
        let scatter = Scatter {
            label_order: vec![RIGHT.into(), WRONG.into()],
            hide_names: true,
            ..scatter(
                "Cells that were predicted as labelled, and those that were not",
                "predicted",
                &agreement,
            )
        };
        let caption = "Errors between groups that touch are a question of where to draw the line; whole groups of them \
                       are a question to the labels as much as to the model.";
        markup.push_str(&figure(&scatter.to_svg(), caption));
    }
    markup
}

/// All labels, true and predicted, the most frequent truth first.
fn by_frequency(cells: &[MappedCell]) -> Vec<String> {
    let mut counts = std::collections::BTreeMap::<&str, (usize, usize)>::new();
    for cell in cells {
        if let Some(truth) = &cell.truth {
            counts.entry(truth.as_str()).or_default().0 += 1;
        }
        if let Some(predicted) = &cell.predicted {
            counts.entry(predicted.as_str()).or_default().1 += 1;
        }
    }
    let mut order: Vec<_> = counts.into_iter().collect();
    order.sort_by_key(|(_, counts)| std::cmp::Reverse(*counts));
    order.into_iter().map(|(label, _)| label.to_owned()).collect()
}

fn calibration(facts: &CalibrationFacts) -> String {
    let panel = |name: &str, calibration: &Calibration| ReliabilityPanel {
        name: name.into(),
        calibration: calibration.clone(),
    };
    let mut panels = vec![panel("as trained", &facts.before)];
    panels.extend(facts.after.iter().map(|after| panel("with the temperature", after)));
    let diagram =
        ReliabilityDiagram { title: "How often predictions of each confidence are right".into(), panels };
    let caption = "Bars that end at the dashed line keep what they promise; below it the model is too sure. The small bars \
                   show how many cells have each confidence.";
    let mut markup = figure(&diagram.to_svg(), caption);
    let mut sentences = vec![format!(
        "Expected calibration error {} as trained{}: by so much do confidence and accuracy differ, in the mean over cells.",
        decimal(facts.before.expected_error(), 3),
        facts.after.as_ref().map_or(String::new(), |after| format!(
            ", {} with the temperature",
            decimal(after.expected_error(), 3)
        ))
    )];
    if let Some(temperature) = &facts.temperature {
        sentences.push(format!(
            "Temperature {}, chosen on the validation cells: the model as trained is {}. It changes confidences and no label.",
            significant(temperature.value, 3),
            match temperature.value {
                value if value > 1.05 => "surer than it should be",
                value if value < 0.95 => "less sure than it could be",
                _ => "about as sure as it should be",
            }
        ));
    }
    if let Some(threshold) = &facts.threshold {
        sentences.push(format!(
            "Cells with a confidence below {} are called unknown. Of the validation cells {} keep their label, {} of those \
             rightly, and {} of the wrong labels are avoided.",
            decimal(threshold.confidence, 3),
            percent(threshold.coverage),
            percent(threshold.kept_accuracy),
            percent(threshold.rejected_errors)
        ));
    }
    markup.push_str(&list(&sentences));
    markup
}

fn attention(report: &AnnotationReport) -> String {
    let mut markup = String::new();
    if let Some(heatmap) = &report.attention {
        let caption = "Attention says where the model looked, not why; a gene that is high for one class alone is a \
                       candidate marker of it.";
        markup.push_str(&figure(&heatmap.to_svg(), caption));
    }
    let rows: Vec<_> = report
        .attended_genes
        .iter()
        .map(|class| {
            let name = |gene: &GeneScore| format!("{}\u{a0}({})", gene.gene, significant(gene.score, 2));
            let genes: Vec<String> = class.genes.iter().take(MOST_GENES).map(name).collect();
            [class.class.clone(), genes.join(", ")]
        })
        .collect();
    markup.push_str(&table(
        [("class", Align::Text), ("most attended genes (score)", Align::Text)],
        &rows,
        false,
    ));
    markup
}

fn training(curves: &TrainingCurves) -> String {
    let mut markup = String::new();
    if !curves.training_loss.is_empty() || !curves.validation_loss.is_empty() {
        let chart = LineChart {
            title: "Loss during training".into(),
            x_name: "optimizer step".into(),
            y_name: "cross-entropy (nats)".into(),
            series: loss_series(&curves.training_loss, &curves.validation_loss),
            ..LineChart::default()
        };
        markup.push_str(&figure(&chart.to_svg(), ""));
    }
    if !curves.validation_macro_f1.is_empty() {
        let points = curves.validation_macro_f1.iter().map(|&(step, score)| (step as f64, score)).collect();
        let chart = LineChart {
            title: "Macro-F1 on the validation cells".into(),
            x_name: "optimizer step".into(),
            y_name: "macro-F1".into(),
            series: vec![Series { name: "validation".into(), style: SeriesStyle::Dots, points }],
            ..LineChart::default()
        };
        markup.push_str(&figure(&chart.to_svg(), ""));
    }
    if let Some(step) = curves.best_step {
        markup.push_str(&paragraph(&format!("The weights of step {} were kept.", grouped(step))));
    }
    markup
}

fn cells(report: &AnnotationReport) -> String {
    let mut markup = String::new();
    if !report.split.is_empty() {
        markup.push_str(&paragraph(&format!("The cells were divided {}.", report.split)));
    }
    let rows: Vec<_> = report
        .split_parts
        .iter()
        .map(|part| [part.name.clone(), grouped(part.n_cells), grouped(part.n_classes), part.source.clone()])
        .collect();
    let headings =
        [("part", Align::Text), ("cells", Align::Number), ("classes", Align::Number), ("from", Align::Text)];
    markup.push_str(&table(headings, &rows, false));
    let rows: Vec<_> = report
        .class_cells
        .iter()
        .map(|cells| {
            let counts = [cells.n_training, cells.n_validation, cells.n_test].map(grouped);
            let [training, validation, test] = counts;
            [cells.class.clone(), training, validation, test]
        })
        .collect();
    let headings = [
        ("class", Align::Text),
        ("training", Align::Number),
        ("validation", Align::Number),
        ("test", Align::Number),
    ];
    markup.push_str(&table(headings, &rows, false));
    markup
}
