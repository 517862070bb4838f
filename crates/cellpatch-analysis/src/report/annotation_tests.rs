use super::tests::{HOSTILE, tags};
use super::*;
use crate::figure::{Heatmap, HeatmapCell, HeatmapRow};
use crate::metrics::{Calibration, ConfusionMatrix, MeanInterval, Temperature, UnknownThreshold};

fn method(name: &str, macro_f1: f64) -> ScoredMethod {
    let score = MeanInterval::single(macro_f1);
    ScoredMethod { name: name.into(), accuracy: score, macro_f1: score, note: String::new() }
}

fn matrix() -> ConfusionMatrix {
    let names = ["B cell", "T cell", "absent"].map(str::to_owned);
    ConfusionMatrix::new(&names, &[0, 0, 0, 1, 1], &[0, 0, 1, 1, 1]).unwrap()
}

/// A report in which every text is hostile.
fn hostile() -> AnnotationReport {
    let text = || HOSTILE.to_owned();
    let fact = || Fact { name: text(), value: text() };
    let cell = MappedCell { x: 0.0, y: 1.0, truth: Some(text()), predicted: Some(text()) };
    AnnotationReport {
        title: text(),
        command_line: text(),
        summary: vec![fact()],
        warnings: vec![
            Warning::RareClasses { names: vec![text()], fewest: 2 },
            Warning::UnseenClasses { names: vec![text()], n_cells: 1 },
            Warning::Other(text()),
        ],
        model: Some(ScoredMethod { note: text(), ..method(HOSTILE, 0.5) }),
        baselines: vec![method(HOSTILE, 0.4)],
        confusion: Some(ConfusionMatrix::new(&[text()], &[0], &[0]).unwrap()),
        cell_map: Some(AnnotationMap { caption: text(), x_name: text(), y_name: text(), cells: vec![cell] }),
        attended_genes: vec![AttendedGenes {
            class: text(),
            genes: vec![GeneScore { gene: text(), score: 1.0 }],
        }],
        attention: Some(Heatmap {
            title: text(),
            x_name: text(),
            y_name: text(),
            value_name: text(),
            columns: vec![text()],
            rows: vec![HeatmapRow { name: text(), cells: vec![HeatmapCell { value: 1.0, text: text() }] }],
            limits: None,
        }),
        split: text(),
        split_parts: vec![SplitPart { name: text(), source: text(), ..SplitPart::default() }],
        class_cells: vec![ClassCells { class: text(), ..ClassCells::default() }],
        configuration: vec![ConfigurationSection { name: text(), fields: vec![fact()] }],
        files: vec![RunFile { path: text(), content: text() }],
        next_steps: vec![NextStep { purpose: text(), command: text() }],
        calibration: Some(CalibrationFacts::default()),
        training: TrainingCurves {
            training_loss: vec![CurvePoint { step: 1, loss: 1.0 }],
            validation_macro_f1: vec![(1, 0.5)],
            ..TrainingCurves::default()
        },
    }
}

#[test]
fn no_text_of_an_annotation_becomes_markup() {
    let page = hostile().render();
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("\"'>"));
    assert!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count() >= 30);
    let mut open = Vec::new();
    for tag in tags(&page) {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop().as_deref(), Some(name)),
            None if tag == "meta" => {}
            None => open.push(tag),
        }
    }
    assert!(open.is_empty(), "{open:?} left open");
}

#[test]
fn an_empty_annotation_is_a_heading_and_nothing_more() {
    let page = AnnotationReport { title: "stopped".into(), ..AnnotationReport::default() }.render();
    assert!(page.contains("<h1>stopped</h1>") && !page.contains("<section>"));
}

#[test]
fn the_verdict_sets_the_model_against_the_best_baseline() {
    let verdict = |model: f64, baselines: &[f64]| {
        AnnotationReport {
            model: Some(method("model", model)),
            baselines: baselines.iter().map(|score| method(&format!("baseline {score}"), *score)).collect(),
            ..AnnotationReport::default()
        }
        .render()
    };
    let better = verdict(0.9, &[0.5, 0.8, 0.7]);
    assert!(better.contains("does better than baseline 0.8 (macro-F1 higher by 0.100)"));
    assert!(verdict(0.7, &[0.8]).contains("does not reach baseline 0.8 (macro-F1 lower by 0.100)"));
    assert!(verdict(0.802, &[0.8]).contains("does about as well as baseline 0.8"));
    assert!(verdict(0.9, &[]).contains("labels 90.0\u{a0}% of the test cells as they were labelled."));
}

#[test]
fn a_difference_within_the_interval_over_repeats_is_none() {
    let mut model = method("model", 0.83);
    model.macro_f1 = MeanInterval::of(&[0.80, 0.83, 0.86]).unwrap();
    let report = AnnotationReport {
        model: Some(model),
        baselines: vec![method("baseline", 0.80)],
        ..AnnotationReport::default()
    };
    let page = report.render();
    assert!(page.contains("about as well as baseline") && page.contains("0.830 ± 0.075"));
    assert!(page.contains("over up to 3 repeats"));
}

#[test]
fn scores_are_read_off_the_confusion_matrix_where_none_are_given() {
    let page = AnnotationReport { confusion: Some(matrix()), ..AnnotationReport::default() }.render();
    assert!(page.contains("<dd>0.800</dd>"));
    assert!(page.contains("<td>B cell</td><td class=\"number\">0.800</td>") && !page.contains("absent"));
}

#[test]
fn the_maps_show_truth_prediction_and_agreement_as_far_as_they_are_known() {
    let cell = |truth: Option<&str>, predicted: Option<&str>| MappedCell {
        x: 0.0,
        y: 0.0,
        truth: truth.map(str::to_owned),
        predicted: predicted.map(str::to_owned),
    };
    let page = |cells| {
        let cell_map = Some(AnnotationMap { cells, ..AnnotationMap::default() });
        AnnotationReport { cell_map, ..AnnotationReport::default() }.render()
    };
    let all = page(vec![cell(Some("B"), Some("B")), cell(Some("B"), Some("T")), cell(None, Some("T"))]);
    assert_eq!(all.matches("<svg").count(), 3);
    assert!(all.contains("as labelled (1)") && all.contains("otherwise (1)") && all.contains("no label (1)"));
    assert_eq!(page(vec![cell(None, Some("B"))]).matches("<svg").count(), 1);
}

#[test]
fn the_calibration_is_told_in_words() {
    let calibration = Calibration::new(&[0.9, 0.9], &[true, false]).unwrap();
    let facts = CalibrationFacts {
        after: Some(Calibration::new(&[0.5, 0.5], &[true, false]).unwrap()),
        before: calibration,
        temperature: Some(Temperature { value: 2.5, loss_before: 1.0, loss_after: 0.5 }),
        threshold: Some(UnknownThreshold {
            confidence: 0.61,
            coverage: 0.9,
            kept_accuracy: 0.97,
            rejected_errors: 0.4,
        }),
    };
    let page = AnnotationReport { calibration: Some(facts), ..AnnotationReport::default() }.render();
    assert!(page.contains("error 0.400 as trained, 0.000 with the temperature"));
    assert!(page.contains("Temperature 2.50") && page.contains("surer than it should be"));
    assert!(
        page.contains("below 0.610 are called unknown") && page.contains("40\u{a0}% of the wrong labels")
    );
}

#[test]
fn warnings_name_what_they_warn_of_but_not_without_end() {
    let names = (0..30).map(|at| format!("type {at}")).collect();
    let warnings =
        vec![Warning::RareClasses { names, fewest: 20 }, Warning::MissingLabels { n_cells: 1_200 }];
    let page = AnnotationReport { warnings, ..AnnotationReport::default() }.render();
    assert!(page.contains("type 7 and 22 more") && page.contains("1,200 cells have no label"));
}
