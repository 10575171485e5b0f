"""Public collections as their archives unpack them: the folder to name, what lies in it, and what is said of it.

`{a,b}` stands for several files. Sources: the pages of the collections, and public code that reads them, as named beside the
rules in `brats_utils/cases`; for what lies beside scans and labels, https://doi.org/10.7937/TCIA.709X-DN49 (UPENN-GBM),
https://doi.org/10.6084/m9.figshare.c.5904905 (LUMIERE), https://doi.org/10.1148/ryai.230182 (UCSF-ALPTDG).
"""

TREES = {
    "BraTS 2012 to 2016": (
        "BRATS2015_Training",
        """HGG/brats_2013_pat0001_1/VSD.Brain.XX.O.MR_{Flair.54512/VSD.Brain.XX.O.MR_Flair.54512,T1.54513/VSD.Brain.XX.O.MR_T1.54513,T1c.54514/VSD.Brain.XX.O.MR_T1c.54514,T2.54515/VSD.Brain.XX.O.MR_T2.54515}.mha
        HGG/brats_2013_pat0001_1/VSD.Brain_3more.XX.O.OT.54517/VSD.Brain_3more.XX.O.OT.54517.mha
        LGG/brats_tcia_pat101_0001/VSD.Brain.XX.O.MR_{Flair.1/VSD.Brain.XX.O.MR_Flair.1,T1.2/VSD.Brain.XX.O.MR_T1.2,T1c.3/VSD.Brain.XX.O.MR_T1c.3,T2.4/VSD.Brain.XX.O.MR_T2.4}.mha
        LGG/brats_tcia_pat101_0001/VSD.Brain_3more.XX.XX.OT.5/VSD.Brain_3more.XX.XX.OT.5.mha""",
        "four files a patient, 2 cases, 2 with a label in the brats2015 convention, as you say.",
    ),
    "BraTS 2017 to 2020": (
        "MICCAI_BraTS2020_TrainingData",
        """BraTS20_Training_354/BraTS20_Training_354_{flair,t1,t1ce,t2,seg}.nii
        BraTS20_Training_355/BraTS20_Training_355_{flair,t1,t1ce,t2}.nii
        BraTS20_Training_355/W39_1998.09.19_Segm.nii
        name_mapping.csv
        survival_info.csv""",
        "four files a patient, 2 cases, 2 with a label in the brats2021 convention, as you say.",
    ),
    "BraTS 2021": (
        "BraTS2021_Training_Data",
        """BraTS2021_00000/BraTS2021_00000_flair.nii/00000057_brain_flair.nii
        BraTS2021_00000/BraTS2021_00000_t1.nii/00000057_brain_t1.nii
        BraTS2021_00000/BraTS2021_00000_t1ce.nii/00000057_brain_t1ce.nii
        BraTS2021_00000/BraTS2021_00000_t2.nii/00000057_brain_t2.nii
        BraTS2021_00000/BraTS2021_00000_seg.nii/00000057_final_seg.nii
        BraTS2021_00002/BraTS2021_00002_{flair,t1,t1ce,t2,seg}.nii.gz""",
        "four files a patient, 2 cases, 2 with a label in the brats2021 convention, as you say.",
    ),
    "BraTS-GLI 2023, BraTS-GoAT 2024": (
        "MICCAI2024-BraTS-GoAT-TrainingData-With-GroundTruth",
        "MICCAI2024-BraTS-GoAT-TrainingData-With-GroundTruth/BraTS-GoAT-00000/BraTS-GoAT-00000-{t2f,t1n,t1c,t2w,seg}.nii.gz",
        "four files a patient, 1 case, 1 with a label in the brats2023 convention, as you say.",
    ),
    "BraTS-GLI 2024 and 2025": (
        "training_data1_v2",
        """BraTS-GLI-02063-100/BraTS-GLI-02063-100-{t2f,t1n,t1c,t2w,seg}.nii.gz
        BraTS-GLI-02063-101/BraTS-GLI-02063-101-{t2f,t1n,t1c,t2w,seg}.nii.gz""",
        "four files a patient, 2 cases, 2 with a label in the brats2024 convention, as you say.",
    ),
    "BraTS-PED 2024 and 2025": (
        "BraTS-PEDs2024_Training",
        "BraTS-PED-00001-000/BraTS-PED-00001-000-{t2f,t1n,t1c,t2w,seg}.nii.gz",
        "four files a patient, 1 case, 1 with a label in the brats_peds convention, as you say.",
    ),
    "BraTS-MET 2025": (
        "MICCAI-LH-BraTS2025-MET-Challenge-Training",
        """BraTS-MET-00001-000/BraTS-MET-00001-000-{t2f,t1n,t1c,t2w,seg}.nii.gz
        UCSD - Training/BraTS-MET-01057-000/BraTS-MET-01057-000-{t2f,t1n,t1c,t2w,seg}.nii.gz""",
        "four files a patient, 2 cases, 2 with a label in the brats2024 convention, as you say.",
    ),
    "BraTS-Africa": (
        "BraTS-Africa",
        """95_Glioma/BraTS-SSA-00002-000/BraTS-SSA-00002-000-{t2f,t1n,t1c,t2w,seg}.nii.gz
        51_OtherNeoplasms/BraTS-SSA-00009-000/BraTS-SSA-00009-000-{t2f,t1n,t1c,t2w,seg}.nii.gz""",
        "four files a patient, 2 cases, 2 with a label in the brats2023 convention, as you say.",
    ),
    "TCGA-GBM, TCGA-LGG (pre-operative)": (
        "Pre-operative_TCGA_GBM_NIfTI_and_Segmentations",
        """TCGA-02-0006/TCGA-02-0006_1996.08.23_{flair,t1,t1Gd,t2,GlistrBoost,GlistrBoost_ManuallyCorrected}.nii.gz
        TCGA-02-0070/TCGA-02-0070_2000.10.13_{flair,t1,t1Gd,t2,GlistrBoost}.nii.gz""",
        "four files a patient, 2 cases, 2 with a label in the brats2021 convention, as you say. Of several labels of a case the most "
        "trusted was taken: 1 made or corrected by people (TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz), 1 made "
        "by a program (TCGA-02-0070_2000.10.13_GlistrBoost.nii.gz).",
    ),
    "REMBRANDT": (
        "REMBRANDT",
        """Patients_1_20/HF1702_1996.03.16/HF1702_1996.03.16_{t1,t1ce,t2,flair}_LPS_rSRI.nii.gz
        Patients_1_20/HF1702_1996.03.16/HF1702_1996.03.16_GlistrBoost_out.nii.gz""",
        "four files a patient, 1 case, 1 with a label in the brats2021 convention, as you say.",
    ),
    "UCSF-PDGM": (
        "UCSF-PDGM-v3",
        """UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_{FLAIR,T1,T1c,T2,ADC,ASL,DWI,SWI,DTI_eddy_FA,DTI_eddy_noreg}.nii.gz
        UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_{FLAIR,T1,T1c,T2,DWI,SWI}_bias.nii.gz
        UCSF-PDGM-0004_nifti/UCSF-PDGM-0004_{tumor,brain,brain_parenchyma}_segmentation.nii.gz""",
        "four files a patient, 1 case, 1 with a label in the brats2021 convention, as you say.",
    ),
    "UPENN-GBM": (
        "NIfTI-files",
        """images_structural/UPENN-GBM-00002_11/UPENN-GBM-00002_11_{FLAIR,T1,T1GD,T2}.nii.gz
        images_structural/UPENN-GBM-00003_11/UPENN-GBM-00003_11_{FLAIR,T1,T1GD,T2}.nii.gz
        images_structural/UPENN-GBM-00003_21/UPENN-GBM-00003_21_{FLAIR,T1,T1GD,T2}.nii.gz
        images_structural_unstripped/UPENN-GBM-00002_11/UPENN-GBM-00002_11_{FLAIR,T1,T1GD,T2}_unstripped.nii.gz
        images_segm/UPENN-GBM-00002_11_segm.nii.gz
        automated_segm/UPENN-GBM-00002_11_automated_approx_segm.nii.gz
        automated_segm/UPENN-GBM-00003_11_automated_approx_segm.nii.gz
        images_DTI/images_DTI/UPENN-GBM-00002_11/UPENN-GBM-00002_11_DTI_{AD,FA,RD,TR}.nii.gz
        images_DSC/UPENN-GBM-00002_11/UPENN-GBM-00002_11_{DSC,DSC_ap-rCBV,DSC_PH,DSC_PSR}.nii.gz""",
        "four files a patient, labels in automated_segm and images_segm, 3 cases, 2 with a label in the brats2021 convention, as you "
        "say. Of several labels of a case the most trusted was taken: 1 not said to be automatic "
        "(UPENN-GBM-00002_11_segm.nii.gz), 1 made by a program (UPENN-GBM-00003_11_automated_approx_segm.nii.gz).",
    ),
    "UTSW-Glioma": (
        "UTSW-Glioma",
        """BT0001/brain_{t1,t1ce,t2,fl}_ants.nii.gz
        BT0001/{rtumorseg_manual_correction,tumorseg_manual_correction,tumorseg_FeTS}.nii.gz
        BT0002/brain_{t1,t1ce,t2,flair}.nii.gz
        BT0002/tumorseg_FeTS.nii.gz""",
        "four files a patient, 2 cases, 2 with a label in the brats2021 convention, as you say. Of several labels of a case the most "
        "trusted was taken: 1 made or corrected by people (rtumorseg_manual_correction.nii.gz), 1 made by a program "
        "(tumorseg_FeTS.nii.gz).",
    ),
    "Erasmus Glioma Database": (
        "egd",
        """EGD-0001/1_T1/NIFTI/T1.nii.gz
        EGD-0001/2_T1GD/NIFTI/T1GD.nii.gz
        EGD-0001/3_T2/NIFTI/T2.nii.gz
        EGD-0001/4_FLAIR/NIFTI/FLAIR.nii.gz
        EGD-0001/5_MASK/NIFTI/MASK.nii.gz
        EGD-0001/metadata.json""",
        "four files a patient, a folder a sequence, 1 case, 1 with a label in the whole_tumour convention, as you say.",
    ),
    "IvyGAP-Radiomics": (
        "IvyGAP-Radiomics",
        """Multi-Institutional_images-atlas-annotations/1_Images_SRI/CoRegistered_SkullStripped/W1/W1_1996.10.25/W1_1996.10.25_{flair_LPS_r,t1_LPS_r3,t1gd_LPS_r,t2_LPS_N4_r}_SS.nii.gz
        Multi-Institutional_images-atlas-annotations/2_Atlas_SRI/spgr_unstrip_lps.nii.gz
        Multi-Institutional_images-atlas-annotations/3_Annotations_SRI/UPenn/W1/W1_1996.10.25_UPenn_labels.nii.gz""",
        "four files a patient, labels in 3_Annotations_SRI, 1 case, 1 with a label in the brats2021 convention, as you say.",
    ),
    "RHUH-GBM": (
        "RHUH-GBM_nii_v1",
        """RHUH-0001/0/RHUH-0001_0_{flair,t1,t1ce,t2,adc,segmentations}.nii.gz
        RHUH-0001/2/RHUH-0001_2_{flair,t1,t1ce,t2,adc,segmentations}.nii.gz
        RHUH-0002/0/RHUH-0002_0_{flair,t1,t1ce,t2,adc,segmentations}.nii.gz""",
        "four files a patient, 3 cases, 3 with a label in the brats2021 convention, as you say.",
    ),
    "MU-Glioma-Post": (
        "MU-Glioma-Post",
        """PatientID_0003/Timepoint_1/PatientID_0003_Timepoint_1_{brain_t1c,brain_t1n,brain_t2f,brain_t2w,tumorMask}.nii.gz
        PatientID_0003/Timepoint_2/PatientID_0003_Timepoint_2_{brain_t1c,brain_t1n,brain_t2f,brain_t2w,tumorMask}.nii.gz
        PatientID_0004/Timepoint_1/PatientID_0004_Timepoint_1_{brain_t1c,brain_t1n,brain_t2f,brain_t2w,tumorMask}.nii.gz""",
        "four files a patient, 3 cases, 3 with a label in the brats2024 convention, as you say.",
    ),
    "UCSD-PTGBM": (
        "UCSD-PTGBM",
        """UCSD-PTGBM-0002_01/UCSD-PTGBM-0002_01_{T1pre,T1post,T2,FLAIR,SWAN,ADC,BraTS_tumor_seg}.nii.gz
        UCSD-PTGBM-0002_01/UCSD-PTGBM-0002_01_{enhancing,non_enhancing,total}_cellular_tumor_seg.nii.gz""",
        "four files a patient, 1 case, 1 with a label in the brats2024 convention, as you say. Of several labels of a case the most "
        "trusted was taken: 1 not said to be automatic (UCSD-PTGBM-0002_01_BraTS_tumor_seg.nii.gz).",
    ),
    "UCSF-ALPTDG": (
        "UCSF_POSTOP_GLIOMA_DATASET_FINAL_v1.0",
        """100001/100001_time1_{t1,t1ce,t2,flair,t1ce-t1,seg}.nii.gz
        100001/100001_time2_{t1,t1ce,t2,flair,t1ce-t1,seg}.nii.gz
        100001/100001_{flair,t1ce}_{subtraction,subtraction_seg}.nii.gz""",
        "four files a patient, 2 cases, 2 with a label in the brats2024 convention, as you say.",
    ),
    "LUMIERE": (
        "Imaging",
        """Patient-001/week-000-1/{CT1,T1,T2,FLAIR}.nii.gz
        Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas/skull_strip/{ct1,t1,t2,flair}_skull_strip.nii.gz
        Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas/skull_strip/brain_mask.nii.gz
        Patient-001/week-000-1/DeepBraTumIA-segmentation/atlas/segmentation/seg_mask.nii.gz
        Patient-001/week-000-1/DeepBraTumIA-segmentation/native/segmentation/{ct1,t1,t2,flair}_seg_mask.nii.gz
        Patient-001/week-000-1/HD-GLIO-AUTO-segmentation/native/segmentation_{CT1,FLAIR}_origspace.nii.gz
        Patient-001/week-000-1/HD-GLIO-AUTO-segmentation/registered/{CT1,T1,T2,FLAIR}_r2s_bet_reg.nii.gz
        Patient-001/week-000-1/HD-GLIO-AUTO-segmentation/registered/segmentation.nii.gz
        Patient-001/week-044/{CT1,T1,T2,FLAIR}.nii.gz""",
        "four files a patient, scans and labels of DeepBraTumIA-segmentation/atlas, 2 cases, 1 with a label in the "
        "deepbratumia convention, as you say.",
    ),
}  # fmt: skip
