//! Plans in several files, and a setting that changes at every step.

use super::*;

impl Scene {
    fn start_with_files_of(&self, per_file: usize) -> (Handle, Settlement) {
        let (handle, settlement) = self.start();
        (handle, settlement.with_max_payments_per_file(per_file))
    }

    /// Names and number of payouts.
    fn told(&self) -> Vec<(String, usize)> {
        let count = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().matches("<CdtTrfTxInf>").count();
        self.files("outbox").into_iter().map(|(name, bytes)| (name, count(bytes))).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_keeps_its_files_whatever_the_setting_becomes() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start_with_files_of(1);
    settlement.cut_off().await.unwrap();
    planned(&handle, &settlement, ADA).await.unwrap();
    let before = scene.files("staged");
    assert_eq!(before.len(), 2);
    drop(settlement);
    handle.stop();
    // One file is lost, and the setting is another.
    std::fs::remove_file(scene.root.path().join("bank/staged").join(&before[0].0)).unwrap();
    let (handle, settlement) = scene.start();
    approved(&handle, &settlement, BEN).await.unwrap();
    assert_eq!(scene.files("staged"), before);
    let names: Vec<String> = before.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(settlement.report(1).await.unwrap().files, names);
    settlement.run().await.unwrap();
    assert_eq!(scene.files("outbox"), before);
    assert_eq!(settlement.report(1).await.unwrap().files, names);
    assert!(names[0].ends_with("-1-EUR-1-1.pain001.xml") && names[1].ends_with("-1-EUR-2-1.pain001.xml"), "{names:?}");
    // The bank's word on one file is about its payouts only.
    let id = names[1].strip_suffix(".pain001.xml").unwrap().to_owned();
    let hub = handle.hub();
    let told = move |view: &crate::pipeline::View<'_>| told::in_file(view.books, &hub, &id).count();
    assert_eq!(handle.read(told).await.unwrap(), 1);
    audit(&handle);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn plan_whose_split_was_forgotten_is_not_told_the_bank() {
    let scene = Scene::new(1).await;
    let (handle, settlement) = scene.start_with_files_of(1);
    settlement.cut_off().await.unwrap();
    planned(&handle, &settlement, ADA).await.unwrap();
    approved(&handle, &settlement, BEN).await.unwrap();
    let before = scene.files("staged");
    drop(settlement);
    handle.stop();
    let kept = scene.root.path().join("bank/splits.json");
    let aside = scene.root.path().join("aside");
    std::fs::rename(&kept, &aside).unwrap();
    let (handle, settlement) = scene.start();
    assert!(matches!(settlement.run().await, Err(SettlementError::OtherFile { window: 1, .. })));
    assert!(scene.told().is_empty());
    assert_eq!(scene.files("staged"), before, "what was right is still there");
    drop(settlement);
    handle.stop();
    std::fs::rename(&aside, &kept).unwrap();
    let (handle, settlement) = scene.start();
    settlement.run().await.unwrap();
    assert_eq!(scene.files("outbox"), before);
    handle.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn crash_at_every_step_with_another_split_afterwards_tells_the_bank_once() {
    let mut steps = 0;
    let mut seen = std::collections::BTreeSet::new();
    loop {
        let scene = Scene::new(1).await;
        let (handle, settlement) = scene.start_with_files_of(1);
        settlement.fuse.light(steps);
        let lasted = go_on(&handle, &settlement, false).await.is_ok();
        drop(settlement);
        handle.stop();
        for _ in 0..2 {
            let (handle, settlement) = scene.start();
            go_on(&handle, &settlement, false).await.unwrap();
            assert_eq!(state(&settlement).await, Some(WindowState::Instructed), "step {steps}");
            audit(&handle);
            handle.stop();
        }
        let told = scene.told();
        let payouts: Vec<usize> = told.iter().map(|(_, payouts)| *payouts).collect();
        assert!(payouts == [2] || payouts == [1, 1], "step {steps}: {told:?}");
        assert_eq!(scene.files("staged").len(), 0, "step {steps}");
        seen.insert(payouts.len());
        if lasted {
            break;
        }
        steps += 1;
    }
    assert!(steps > 10, "{steps} steps are too few to be all");
    assert_eq!(seen.len(), 2, "before the plan and after it");
}
