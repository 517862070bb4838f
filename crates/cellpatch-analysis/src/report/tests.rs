use super::*;

pub(super) const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&";

/// A report in which every text is hostile.
fn hostile() -> PretrainingReport {
    let text = || HOSTILE.to_owned();
    let fact = || Fact { name: text(), value: text() };
    PretrainingReport {
        title: text(),
        command_line: text(),
        summary: vec![fact()],
        data: DataFacts {
            n_cells_training: 1,
            split: text(),
            sources: vec![Source { name: text(), ..Source::default() }],
            drop_outs: vec![DropOut { rule: text(), ..DropOut::default() }],
            genes_per_cell: vec![1, 2],
            ..DataFacts::default()
        },
        configuration: vec![ConfigurationSection { name: text(), fields: vec![fact()] }],
        training_loss: vec![CurvePoint { step: 1, loss: 1.0 }],
        validation_loss: vec![CurvePoint { step: 1, loss: 1.0 }],
        validation: Some(Validation { n_cells: 1, loss: 1.0, gene_mean_loss: 2.0 }),
        cell_map: Some(CellMap {
            caption: text(),
            x_name: text(),
            y_name: text(),
            label_name: text(),
            points: vec![ScatterPoint { x: 0.0, y: 0.0, label: Some(text()) }],
        }),
        files: vec![RunFile { path: text(), content: text() }],
        next_steps: vec![NextStep { purpose: text(), command: text() }],
    }
}

/// The page's tags, in order, names only; closing ones with their slash, self-closing ones left out.
pub(super) fn tags(page: &str) -> Vec<String> {
    let starts = page.match_indices('<').map(|(at, _)| &page[at + 1..]);
    starts
        .filter_map(|rest| rest.split_once('>'))
        .filter(|(tag, _)| !tag.ends_with('/') && !tag.starts_with('!'))
        .map(|(tag, _)| tag.split_whitespace().next().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn no_text_of_a_report_becomes_markup() {
    let page = hostile().render();
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("\"'>"));
    assert!(page.matches("&lt;script&gt;alert(1)&lt;/script&gt;").count() >= 18);
    assert!(tags(&page).iter().all(|tag| tag != "script" && tag != "img"));
}

#[test]
fn every_element_of_the_page_is_closed() {
    for report in [hostile(), PretrainingReport::default()] {
        let mut open = Vec::new();
        for tag in tags(&report.render()) {
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop().as_deref(), Some(name)),
                None if tag == "meta" => {}
                None => open.push(tag),
            }
        }
        assert!(open.is_empty(), "{open:?} left open");
    }
}

#[test]
fn the_page_asks_for_nothing_from_elsewhere() {
    let page = hostile().render().replace("http://www.w3.org/2000/svg", "");
    for forbidden in ["http:", "https:", "@import", "url(", " src=\"", "<link"] {
        assert!(!page.contains(forbidden), "the page has {forbidden:?}");
    }
}

#[test]
fn r2_is_measured_against_the_gene_means() {
    let r2 = |loss, gene_mean_loss| Validation { n_cells: 10, loss, gene_mean_loss }.r2();
    assert_eq!(r2(0.25, 1.0), Some(0.75));
    assert_eq!(r2(1.0, 1.0), Some(0.0));
    assert_eq!(r2(1.5, 1.0), Some(-0.5));
    assert_eq!(r2(f64::NAN, 1.0), None);
    assert_eq!(r2(0.5, 0.0), None);
}

#[test]
fn the_page_says_in_words_whether_the_model_learned() {
    let page = |loss| {
        let validation = Some(Validation { n_cells: 2_048, loss, gene_mean_loss: 1.0 });
        PretrainingReport { validation, ..PretrainingReport::default() }.render()
    };
    let good = page(0.6);
    assert!(good.contains("The model learned more than") && good.contains("explains 40\u{a0}%"));
    assert!(good.contains("2,048 cells"));
    assert!(page(0.999).contains("about as well as"));
    let bad = page(1.3);
    assert!(bad.contains("does not yet predict as well") && bad.contains("R² = \u{2212}0.300"));
    assert!(page(f64::NAN).contains("undefined"));
}

#[test]
fn a_run_stopped_before_its_first_step_still_has_a_report() {
    let page = PretrainingReport { title: "stopped".into(), ..PretrainingReport::default() }.render();
    assert!(page.contains("<h1>stopped</h1>") && !page.contains("<section>"));
}

#[test]
fn a_map_of_one_component_lies_on_a_line() {
    let pca = crate::Pca::fit(&[1.0, 2.0, 6.0], 3, 1, 1).unwrap();
    let map = CellMap::from_pca(&pca, "", &[Some("B".into())]);
    assert!(map.points.iter().all(|point| point.y == 0.0));
    assert_eq!(map.points[0].label.as_deref(), Some("B"));
    assert_eq!(map.points[2].label, None);
    assert_eq!(map.x_name, "PC 1 (100\u{a0}% of variance)");
}

#[test]
fn writing_leaves_the_page_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    let report = hostile();
    std::fs::write(&path, "an older report").unwrap();
    report.write(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), report.render());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let nowhere = folder.path().join("absent").join("report.html");
    let error = report.write(&nowhere).unwrap_err();
    assert!(error.to_string().contains("absent"), "{error}");
}
