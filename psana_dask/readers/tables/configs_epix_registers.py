"""Register maps of the ePix ASICs and carrier boards."""

from __future__ import annotations

from psana_dask.readers.records import Array, Bits, Field, Hidden, Record

EPIX_ASIC_CONFIG_V1 = Record(
    "Epix.AsicConfigV1",
    (
        Hidden("_reg1",  "u4",     0, bits=(Bits("monostPulser", 0, 3),)),
        Hidden("_reg2",  "u4",     4, bits=(Bits("dummyTest", 0, 1), Bits("dummyMask", 1, 1))),
        Hidden("_reg3",  "u4",     8, bits=(
            Bits("pulser", 0, 10), Bits("pbit", 10, 1), Bits("atest", 11, 1), Bits("test", 12, 1),
            Bits("sabTest", 13, 1), Bits("hrTest", 14, 1),
        )),
        Hidden("_reg4",  "u4",    12, bits=(Bits("digMon1", 0, 4), Bits("digMon2", 4, 4))),
        Hidden("_reg5",  "u4",    16, bits=(Bits("pulserDac", 0, 3),)),
        Hidden("_reg6",  "u4",    20, bits=(
            Bits("Dm1En", 0, 1), Bits("Dm2En", 1, 1), Bits("slvdSBit", 4, 1),
        )),
        Hidden("_reg7",  "u4",    24, bits=(Bits("VRefDac", 0, 6),)),
        Hidden("_reg8",  "u4",    28, bits=(
            Bits("TpsTComp", 0, 1), Bits("TpsMux", 1, 4), Bits("RoMonost", 5, 3),
        )),
        Hidden("_reg9",  "u4",    32, bits=(Bits("TpsGr", 0, 4), Bits("S2dGr", 4, 4))),
        Hidden("_reg10", "u4",    36, bits=(
            Bits("PpOcbS2d", 0, 1), Bits("Ocb", 1, 3), Bits("Monost", 4, 3), Bits("FastppEnable", 7, 1),
        )),
        Hidden("_reg11", "u4",    40, bits=(Bits("Preamp", 0, 3), Bits("PixelCb", 4, 3))),
        Hidden("_reg12", "u4",    44, bits=(Bits("S2dTComp", 0, 1), Bits("FilterDac", 1, 6))),
        Hidden("_reg13", "u4",    48, bits=(Bits("TC", 0, 2), Bits("S2d", 2, 3), Bits("S2dDacBias", 5, 3))),
        Hidden("_reg14", "u4",    52, bits=(Bits("TpsTcDac", 0, 2), Bits("TpsDac", 2, 6))),
        Hidden("_reg15", "u4",    56, bits=(Bits("S2dTcDac", 0, 2), Bits("S2dDac", 2, 6))),
        Hidden("_reg16", "u4",    60, bits=(
            Bits("TestBe", 0, 1), Bits("IsEn", 1, 1), Bits("DelExec", 2, 1), Bits("DelCckReg", 3, 1),
        )),
        Hidden("_reg17", "u4",    64, bits=(Bits("RowStartAddr", 0, 9),)),
        Hidden("_reg18", "u4",    68, bits=(Bits("RowStopAddr", 0, 9),)),
        Hidden("_reg19", "u4",    72, bits=(Bits("ColStartAddr", 0, 7),)),
        Hidden("_reg20", "u4",    76, bits=(Bits("ColStopAddr", 0, 7),)),
        Hidden("_reg21", "u4",    80, bits=(Bits("chipID", 0, 16),)),
    ),
    size=84,
)
EPIX_ASIC10K_CONFIG_V1 = Record(
    "Epix.Asic10kConfigV1",
    (
        Hidden("_reg1",  "u4",     0, bits=(
            Bits("CompTH_DAC", 0, 6), Bits("CompEn_0", 6, 1), Bits("PulserSync", 7, 1),
        )),
        Hidden("_reg2",  "u4",     4, bits=(
            Bits("dummyTest", 0, 1), Bits("dummyMask", 1, 1), Bits("dummyG", 2, 1), Bits("dummyGA", 3, 1),
            Bits("dummyUpper12bits", 4, 12),
        )),
        Hidden("_reg3",  "u4",     8, bits=(
            Bits("pulser", 0, 10), Bits("pbit", 10, 1), Bits("atest", 11, 1), Bits("test", 12, 1),
            Bits("sabTest", 13, 1), Bits("hrTest", 14, 1), Bits("pulserR", 15, 1),
        )),
        Hidden("_reg4",  "u4",    12, bits=(Bits("digMon1", 0, 4), Bits("digMon2", 4, 4))),
        Hidden("_reg5",  "u4",    16, bits=(
            Bits("pulserDac", 0, 3), Bits("monostPulser", 3, 3), Bits("CompEn_1", 6, 1),
            Bits("CompEn_2", 7, 1),
        )),
        Hidden("_reg6",  "u4",    20, bits=(
            Bits("Dm1En", 0, 1), Bits("Dm2En", 1, 1), Bits("emph_bd", 2, 3), Bits("emph_bc", 5, 3),
        )),
        Hidden("_reg7",  "u4",    24, bits=(Bits("VRefDac", 0, 6), Bits("vrefLow", 6, 2))),
        Hidden("_reg8",  "u4",    28, bits=(
            Bits("TpsTComp", 0, 1), Bits("TpsMux", 1, 4), Bits("RoMonost", 5, 3),
        )),
        Hidden("_reg9",  "u4",    32, bits=(Bits("TpsGr", 0, 4), Bits("S2dGr", 4, 4))),
        Hidden("_reg10", "u4",    36, bits=(
            Bits("PpOcbS2d", 0, 1), Bits("Ocb", 1, 3), Bits("Monost", 4, 3), Bits("FastppEnable", 7, 1),
        )),
        Hidden("_reg11", "u4",    40, bits=(
            Bits("Preamp", 0, 3), Bits("PixelCb", 3, 3), Bits("Vld1_b", 6, 2),
        )),
        Hidden("_reg12", "u4",    44, bits=(
            Bits("S2dTComp", 0, 1), Bits("FilterDac", 1, 6), Bits("testVDTransmitter", 7, 1),
        )),
        Hidden("_reg13", "u4",    48, bits=(Bits("TC", 0, 2), Bits("S2d", 2, 3), Bits("S2dDacBias", 5, 3))),
        Hidden("_reg14", "u4",    52, bits=(Bits("TpsTcDac", 0, 2), Bits("TpsDac", 2, 6))),
        Hidden("_reg15", "u4",    56, bits=(Bits("S2dTcDac", 0, 2), Bits("S2dDac", 2, 6))),
        Hidden("_reg16", "u4",    60, bits=(
            Bits("TestBe", 0, 1), Bits("IsEn", 1, 1), Bits("DelExec", 2, 1), Bits("DelCckReg", 3, 1),
            Bits("RO_rst_en", 4, 1), Bits("slvdSBit", 5, 1), Bits("FELmode", 6, 1), Bits("CompEnOn", 7, 1),
        )),
        Hidden("_reg17", "u4",    64, bits=(Bits("RowStartAddr", 0, 9),)),
        Hidden("_reg18", "u4",    68, bits=(Bits("RowStopAddr", 0, 9),)),
        Hidden("_reg19", "u4",    72, bits=(Bits("ColStartAddr", 0, 7),)),
        Hidden("_reg20", "u4",    76, bits=(Bits("ColStopAddr", 0, 7),)),
        Hidden("_reg21", "u4",    80, bits=(Bits("chipID", 0, 16),)),
    ),
    size=84,
)
EPIX_ASIC100A_CONFIG_V1 = Record(
    "Epix.Asic100aConfigV1",
    (
        Hidden("_reg1",  "u4",     0, bits=(Bits("pulserVsPixelOnDelay", 0, 3), Bits("pulserSync", 7, 1))),
        Hidden("_reg2",  "u4",     4, bits=(Bits("dummyTest", 0, 1), Bits("dummyMask", 1, 1))),
        Hidden("_reg3",  "u4",     8, bits=(
            Bits("testPulserLevel", 0, 10), Bits("pulserCounterDirection", 10, 1),
            Bits("automaticTestModeEnable", 11, 1), Bits("testMode", 12, 1),
            Bits("testModeWithDarkFrame", 13, 1), Bits("highResolutionModeTest", 14, 1),
            Bits("pulserReset", 15, 1),
        )),
        Hidden("_reg4",  "u4",    12, bits=(
            Bits("digitalMonitorMux1", 0, 4), Bits("digitalMonitorMux2", 4, 4),
        )),
        Hidden("_reg5",  "u4",    16, bits=(
            Bits("testPulserCurrent", 0, 3), Bits("testPointSystemOutputDynamicRange", 4, 4),
        )),
        Hidden("_reg6",  "u4",    20, bits=(
            Bits("digitalMonitor1Enable", 0, 1), Bits("digitalMonitor2Enable", 1, 1),
            Bits("LVDS_ImpedenceMatchingEnable", 4, 1),
        )),
        Hidden("_reg7",  "u4",    24, bits=(
            Bits("VRefBaselineDac", 0, 6), Bits("extraRowsLowReferenceValue", 6, 2),
        )),
        Hidden("_reg8",  "u4",    28, bits=(
            Bits("testPointSystemTemperatureCompensationEnable", 0, 1),
            Bits("testPointSytemInputSelect", 1, 4), Bits("programmableReadoutDelay", 5, 3),
        )),
        Hidden("_reg9",  "u4",    32, bits=(
            Bits("outputDriverOutputDynamicRange0", 0, 4), Bits("outputDriverOutputDynamicRange1", 4, 4),
        )),
        Hidden("_reg10", "u4",    36, bits=(
            Bits("balconyEnable", 0, 1), Bits("balconyDriverCurrent", 1, 3),
            Bits("fastPowerPulsingSpeed", 4, 3), Bits("fastPowerPulsingEnable", 7, 1),
        )),
        Hidden("_reg11", "u4",    40, bits=(
            Bits("preamplifierCurrent", 0, 3), Bits("pixelOutputBufferCurrent", 3, 3),
            Bits("pixelBufferAndPreamplifierDrivingCapabilities", 6, 2),
        )),
        Hidden("_reg12", "u4",    44, bits=(
            Bits("outputDriverTemperatureCompensationEnable", 0, 1), Bits("pixelFilterLevel", 1, 6),
        )),
        Hidden("_reg13", "u4",    48, bits=(
            Bits("bandGapReferenceTemperatureCompensationBits", 0, 2),
            Bits("outputDriverDrivingCapabilitiesAndStability", 2, 3),
            Bits("outputDriverDacReferenceBias", 5, 3),
        )),
        Hidden("_reg14", "u4",    52, bits=(
            Bits("testPointSystemTemperatureCompensationGain", 0, 2),
            Bits("testPointSystemInputCommonMode", 2, 6),
        )),
        Hidden("_reg15", "u4",    56, bits=(
            Bits("outputDriverTemperatureCompensationGain0", 0, 2),
            Bits("outputDriverInputCommonMode0", 2, 6),
        )),
        Hidden("_reg16", "u4",    60, bits=(
            Bits("testBackEnd", 0, 1), Bits("interleavedReadOutEnable", 1, 1), Bits("EXEC_DelayEnable", 2, 1),
            Bits("CCK_RegDelayEnable", 3, 1), Bits("syncPinEnable", 4, 1),
        )),
        Hidden("_reg17", "u4",    64, bits=(Bits("RowStartAddr", 0, 9),)),
        Hidden("_reg18", "u4",    68, bits=(Bits("RowStopAddr", 0, 9),)),
        Hidden("_reg19", "u4",    72, bits=(Bits("ColumnStartAddr", 0, 7),)),
        Hidden("_reg20", "u4",    76, bits=(Bits("ColumnStopAddr", 0, 7),)),
        Hidden("_reg21", "u4",    80, bits=(Bits("chipID", 0, 16),)),
        Hidden("_reg22", "u4",    84, bits=(
            Bits("outputDriverOutputDynamicRange2", 0, 4), Bits("outputDriverOutputDynamicRange3", 4, 4),
        )),
        Hidden("_reg23", "u4",    88, bits=(
            Bits("outputDriverTemperatureCompensationGain1", 0, 2),
            Bits("outputDriverInputCommonMode1", 2, 6),
        )),
        Hidden("_reg24", "u4",    92, bits=(
            Bits("outputDriverTemperatureCompensationGain2", 0, 2),
            Bits("outputDriverInputCommonMode2", 2, 6),
        )),
        Hidden("_reg25", "u4",    96, bits=(
            Bits("outputDriverTemperatureCompensationGain3", 0, 2),
            Bits("outputDriverInputCommonMode3", 2, 6),
        )),
    ),
    size=100,
)
EPIX_ASIC_S_CONFIG_V1 = Record(
    "Epix.AsicSConfigV1",
    (
        Hidden("_reg1",  "u4",     0, bits=(Bits("pulserSync", 7, 1),)),
        Hidden("_reg2",  "u4",     4, bits=(Bits("dummyTest", 0, 1), Bits("dummyMask", 1, 1))),
        Hidden("_reg3",  "u4",     8, bits=(
            Bits("testPulserLevel", 0, 10), Bits("pulserCounterDirection", 10, 1),
            Bits("automaticTestModeEnable", 11, 1), Bits("testMode", 12, 1),
            Bits("testModeWithDarkFrame", 13, 1), Bits("highResolutionModeTest", 14, 1),
            Bits("pulserReset", 15, 1),
        )),
        Hidden("_reg4",  "u4",    12, bits=(
            Bits("digitalMonitorMux1", 0, 4), Bits("digitalMonitorMux2", 4, 4),
        )),
        Hidden("_reg5",  "u4",    16, bits=(
            Bits("testPulserCurrent", 0, 3), Bits("pulserVsPixelOnDelay", 3, 3),
        )),
        Hidden("_reg6",  "u4",    20, bits=(
            Bits("digitalMonitor1Enable", 0, 1), Bits("digitalMonitor2Enable", 1, 1),
            Bits("inputLeakageCompensation", 2, 2), Bits("inputLeakageCompensationEnable", 4, 1),
        )),
        Hidden("_reg7",  "u4",    24, bits=(
            Bits("VRefBaselineDac", 0, 6), Bits("extraRowsLowReferenceValue", 6, 2),
        )),
        Hidden("_reg8",  "u4",    28, bits=(
            Bits("testPointSystemTemperatureCompensationEnable", 0, 1),
            Bits("testPointSytemInputSelect", 1, 4), Bits("programmableReadoutDelay", 5, 3),
        )),
        Hidden("_reg9",  "u4",    32, bits=(
            Bits("testPointSystemOutputDynamicRange", 0, 4), Bits("outputDriverOutputDynamicRange", 4, 4),
        )),
        Hidden("_reg10", "u4",    36, bits=(
            Bits("balconyEnable", 0, 1), Bits("balconyDriverCurrent", 1, 3),
            Bits("fastPowerPulsingSpeed", 4, 3), Bits("fastPowerPulsingEnable", 7, 1),
        )),
        Hidden("_reg11", "u4",    40, bits=(
            Bits("preamplifierCurrent", 0, 3), Bits("pixelOutputBufferCurrent", 3, 3),
            Bits("pixelBufferAndPreamplifierDrivingCapabilities", 6, 2),
        )),
        Hidden("_reg12", "u4",    44, bits=(
            Bits("outputDriverTemperatureCompensationEnable", 0, 1), Bits("pixelFilterLevel", 1, 6),
        )),
        Hidden("_reg13", "u4",    48, bits=(
            Bits("bandGapReferenceTemperatureCompensationBits", 0, 2),
            Bits("outputDriverDrivingCapabilitiesAndStability", 2, 3),
            Bits("outputDriverDacReferenceBias", 5, 3),
        )),
        Hidden("_reg14", "u4",    52, bits=(
            Bits("testPointSystemTemperatureCompensationGain", 0, 2),
            Bits("testPointSystemInputCommonMode", 2, 6),
        )),
        Hidden("_reg15", "u4",    56, bits=(
            Bits("outputDriverTemperatureCompensationGain0", 0, 2),
            Bits("outputDriverInputCommonMode0", 2, 6),
        )),
        Hidden("_reg16", "u4",    60, bits=(
            Bits("testBackEnd", 0, 1), Bits("interleavedReadOutEnable", 1, 1), Bits("EXEC_DelayEnable", 2, 1),
            Bits("CCK_RegDelayEnable", 3, 1), Bits("syncPinEnable", 4, 1),
            Bits("LVDS_ImpedenceMatchingEnable", 5, 1),
        )),
        Hidden("_reg17", "u4",    64, bits=(Bits("RowStartAddr", 0, 9),)),
        Hidden("_reg18", "u4",    68, bits=(Bits("RowStopAddr", 0, 9),)),
        Hidden("_reg19", "u4",    72, bits=(Bits("ColumnStartAddr", 0, 7),)),
        Hidden("_reg20", "u4",    76, bits=(Bits("ColumnStopAddr", 0, 7),)),
        Hidden("_reg21", "u4",    80, bits=(Bits("chipID", 0, 16),)),
    ),
    size=84,
)
EPIX_ASIC10KA_CONFIG_V1 = Record(
    "Epix.Asic10kaConfigV1",
    (
        Hidden("_reg1",  "u4",     0, bits=(
            Bits("CompTH_DAC", 0, 6), Bits("CompEn_lowBit", 6, 1), Bits("PulserSync", 7, 1),
        )),
        Hidden("_reg2",  "u4",     4, bits=(Bits("pixelDummy", 0, 8),)),
        Hidden("_reg3",  "u4",     8, bits=(
            Bits("Pulser", 0, 10), Bits("Pbit", 10, 1), Bits("atest", 11, 1), Bits("test", 12, 1),
            Bits("Sab_test", 13, 1), Bits("Hrtest", 14, 1), Bits("PulserR", 15, 1),
        )),
        Hidden("_reg4",  "u4",    12, bits=(Bits("DM1", 0, 4), Bits("DM2", 4, 4))),
        Hidden("_reg5",  "u4",    16, bits=(
            Bits("Pulser_DAC", 0, 3), Bits("Monost_Pulser", 3, 3), Bits("CompEn_topTwoBits", 6, 2),
        )),
        Hidden("_reg6",  "u4",    20, bits=(
            Bits("DM1en", 0, 1), Bits("DM2en", 1, 1), Bits("emph_bd", 2, 3), Bits("emph_bc", 5, 3),
        )),
        Hidden("_reg7",  "u4",    24, bits=(Bits("VREF_DAC", 0, 6), Bits("VrefLow", 6, 2))),
        Hidden("_reg8",  "u4",    28, bits=(
            Bits("TPS_tcomp", 0, 1), Bits("TPS_MUX", 1, 4), Bits("RO_Monost", 5, 3),
        )),
        Hidden("_reg9",  "u4",    32, bits=(Bits("TPS_GR", 0, 4), Bits("S2D0_GR", 4, 4))),
        Hidden("_reg10", "u4",    36, bits=(
            Bits("PP_OCB_S2D", 0, 1), Bits("OCB", 1, 3), Bits("Monost", 4, 3), Bits("fastPP_enable", 7, 1),
        )),
        Hidden("_reg11", "u4",    40, bits=(
            Bits("Preamp", 0, 3), Bits("PixelCB", 3, 3), Bits("Vld1_b", 6, 2),
        )),
        Hidden("_reg12", "u4",    44, bits=(
            Bits("S2D_tcomp", 0, 1), Bits("Filter_DAC", 1, 6), Bits("testLVDTransmitter", 7, 1),
        )),
        Hidden("_reg13", "u4",    48, bits=(Bits("tc", 0, 2), Bits("S2D", 2, 3), Bits("S2D_DAC_Bias", 5, 3))),
        Hidden("_reg14", "u4",    52, bits=(Bits("TPS_tcDAC", 0, 2), Bits("TPS_DAC", 2, 6))),
        Hidden("_reg15", "u4",    56, bits=(Bits("S2D0_tcDAC", 0, 2), Bits("S2D0_DAC", 2, 6))),
        Hidden("_reg16", "u4",    60, bits=(
            Bits("testBE", 0, 1), Bits("is_en", 1, 1), Bits("DelEXEC", 2, 1), Bits("DelCCKreg", 3, 1),
            Bits("RO_rst_en", 4, 1), Bits("SLVDSbit", 5, 1), Bits("FELmode", 6, 1), Bits("CompEnOn", 7, 1),
        )),
        Hidden("_reg17", "u4",    64, bits=(Bits("RowStart", 0, 9),)),
        Hidden("_reg18", "u4",    68, bits=(Bits("RowStop", 0, 9),)),
        Hidden("_reg19", "u4",    72, bits=(Bits("ColumnStart", 0, 7),)),
        Hidden("_reg20", "u4",    76, bits=(Bits("ColumnStop", 0, 7),)),
        Hidden("_reg21", "u4",    80, bits=(Bits("chipID", 0, 16),)),
        Hidden("_reg22", "u4",    84, bits=(Bits("S2D1_GR", 0, 4), Bits("S2D2_GR", 4, 4))),
        Hidden("_reg23", "u4",    88, bits=(Bits("S2D3_GR", 0, 4), Bits("trbit", 4, 1))),
        Hidden("_reg24", "u4",    92, bits=(Bits("S2D1_tcDAC", 0, 2), Bits("S2D1_DAC", 2, 6))),
        Hidden("_reg25", "u4",    96, bits=(Bits("S2D2_tcDAC", 0, 2), Bits("S2D2_DAC", 2, 6))),
        Hidden("_reg26", "u4",   100, bits=(Bits("S2D3_tcDAC", 0, 2), Bits("S2D3_DAC", 2, 6))),
    ),
    size=104,
)
EPIX_PGP_EVR_CONFIG = Record(
    "Epix.PgpEvrConfig",
    (
        Field("enable",    "u2",     0),
        Field("runCode",   "u1",     2),
        Field("daqCode",   "u1",     3),
        Field("runDelay",  "u4",     4),
    ),
    size=8,
)
EPIX_AD9249_CONFIG = Record(
    "Epix.Ad9249Config",
    (
        Field("chipId",              "u4",     0),
        Field("devIndexMask",        "u4",     4),
        Field("devIndexMaskDcoFco",  "u4",     8),
        Hidden("ControlBits",        "u4",    12, bits=(
            Bits("extPwdnMode", 0, 1), Bits("intPwdnMode", 1, 2), Bits("chopMode", 3, 1),
            Bits("dutyCycleStab", 4, 1), Bits("outputInvert", 5, 1), Bits("outputFormat", 6, 1),
        )),
        Field("clockDivide",         "u4",    16),
        Field("userTestMode",        "u4",    20),
        Field("outputTestMode",      "u4",    24),
        Field("offsetAdjust",        "u4",    28),
        Array("channelDelay",        "u4",    32, (8,)),
        Field("frameDelay",          "u4",    64),
    ),
    size=68,
)
EPIX_QUAD10KA_CONFIG_V1 = Record(
    "Epix.Quad10kaConfigV1",
    (
        Field("baseClockFrequency",                "u4",     0),
        Field("enableAutomaticRunTrigger",         "u4",     4),
        Field("numberOf125MhzTicksPerRunTrigger",  "u4",     8),
        Field("digitalCardId0",                    "u4",    12),
        Field("digitalCardId1",                    "u4",    16),
        Field("dcdcEn",                            "u4",    20),
        Field("asicAnaEn",                         "u4",    24),
        Field("asicDigEn",                         "u4",    28),
        Field("ddrVttEn",                          "u4",    32),
        Field("trigSrcSel",                        "u4",    36),
        Field("vguardDac",                         "u4",    40),
        Field("acqToAsicR0Delay",                  "u4",    44),
        Field("asicR0Width",                       "u4",    48),
        Field("asicR0ToAsicAcq",                   "u4",    52),
        Field("asicAcqWidth",                      "u4",    56),
        Field("asicAcqLToPPmatL",                  "u4",    60),
        Field("asicPPmatToReadout",                "u4",    64),
        Field("asicRoClkHalfT",                    "u4",    68),
        Hidden("_asicForce",                       "u4",    72, bits=(
            Bits("asicAcqForce", 0, 1), Bits("asicR0Force", 1, 1), Bits("asicPPmatForce", 2, 1),
            Bits("asicSyncForce", 3, 1), Bits("asicRoClkForce", 4, 1),
        )),
        Hidden("_asicForceValue",                  "u4",    76, bits=(
            Bits("asicAcqValue", 0, 1), Bits("asicR0Value", 1, 1), Bits("asicPPmatValue", 2, 1),
            Bits("asicSyncValue", 3, 1), Bits("asicRoClkValue", 4, 1),
        )),
        Field("adcPipelineDelay",                  "u4",    80),
        Field("testData",                          "u4",    84),
        Hidden("_Scope",                           "u4",    88, bits=(
            Bits("scopeEnable", 0, 1), Bits("scopeTrigEdge", 1, 1), Bits("scopeTrigChan", 2, 5),
            Bits("scopeTrigMode", 7, 2), Bits("scopeADCThreshold", 16, 16),
        )),
        Hidden("_ScopeTriggerParms_1",             "u4",    92, bits=(
            Bits("scopeTrigHoldoff", 0, 13), Bits("scopeTrigOffset", 13, 13),
        )),
        Hidden("_ScopeTriggerParms_2",             "u4",    96, bits=(
            Bits("scopeTraceLength", 0, 13), Bits("scopeADCsamplesToSkip", 13, 13),
        )),
        Hidden("_ScopeWaveformSelects",            "u4",   100, bits=(
            Bits("scopeChanAwaveformSelect", 0, 7), Bits("scopeChanBwaveformSelect", 7, 7),
        )),
        Field("scopeTrigDelay",                    "u4",   104),
        Array("adc",                               EPIX_AD9249_CONFIG, 108, (10,)),
        Field("testChannel",                       "u4",   788),
        Field("testDataMask",                      "u4",   792),
        Field("testPattern",                       "u4",   796),
        Field("testSamples",                       "u4",   800),
        Field("testTimeout",                       "u4",   804),
        Field("testRequest",                       "u4",   808),
    ),
    size=812,
)
EPIX_QUAD10KA_CONFIG_V2 = Record(
    "Epix.Quad10kaConfigV2",
    (
        Field("baseClockFrequency",                "u4",     0),
        Field("enableAutomaticRunTrigger",         "u4",     4),
        Field("numberOf125MhzTicksPerRunTrigger",  "u4",     8),
        Field("firmwareVersion",                   "u4",    12),
        Field("digitalCardId0",                    "u4",    16),
        Field("digitalCardId1",                    "u4",    20),
        Array("firmwareHash",                      "char",  24, (64,)),
        Array("firmwareDesc",                      "char",  88, (256,)),
        Field("dcdcEn",                            "u4",   344),
        Field("asicAnaEn",                         "u4",   348),
        Field("asicDigEn",                         "u4",   352),
        Field("ddrVttEn",                          "u4",   356),
        Field("trigSrcSel",                        "u4",   360),
        Field("vguardDac",                         "u4",   364),
        Field("acqToAsicR0Delay",                  "u4",   368),
        Field("asicR0Width",                       "u4",   372),
        Field("asicR0ToAsicAcq",                   "u4",   376),
        Field("asicAcqWidth",                      "u4",   380),
        Field("asicAcqLToPPmatL",                  "u4",   384),
        Field("asicPPmatToReadout",                "u4",   388),
        Field("asicRoClkHalfT",                    "u4",   392),
        Hidden("_asicForce",                       "u4",   396, bits=(
            Bits("asicAcqForce", 0, 1), Bits("asicR0Force", 1, 1), Bits("asicPPmatForce", 2, 1),
            Bits("asicSyncForce", 3, 1), Bits("asicRoClkForce", 4, 1),
        )),
        Hidden("_asicForceValue",                  "u4",   400, bits=(
            Bits("asicAcqValue", 0, 1), Bits("asicR0Value", 1, 1), Bits("asicPPmatValue", 2, 1),
            Bits("asicSyncValue", 3, 1), Bits("asicRoClkValue", 4, 1),
        )),
        Field("dummyAcqEn",                        "u4",   404),
        Field("asicSyncInjEn",                     "u4",   408),
        Field("asicSyncInjDly",                    "u4",   412),
        Field("adcPipelineDelay",                  "u4",   416),
        Field("testData",                          "u4",   420),
        Field("overSampleEn",                      "u4",   424),
        Field("overSampleSize",                    "u4",   428),
        Hidden("_Scope",                           "u4",   432, bits=(
            Bits("scopeEnable", 0, 1), Bits("scopeTrigEdge", 1, 1), Bits("scopeTrigChan", 2, 5),
            Bits("scopeTrigMode", 7, 2), Bits("scopeADCThreshold", 16, 16),
        )),
        Hidden("_ScopeTriggerParms_1",             "u4",   436, bits=(
            Bits("scopeTrigHoldoff", 0, 13), Bits("scopeTrigOffset", 13, 13),
        )),
        Hidden("_ScopeTriggerParms_2",             "u4",   440, bits=(
            Bits("scopeTraceLength", 0, 13), Bits("scopeADCsamplesToSkip", 13, 13),
        )),
        Hidden("_ScopeWaveformSelects",            "u4",   444, bits=(
            Bits("scopeChanAwaveformSelect", 0, 7), Bits("scopeChanBwaveformSelect", 7, 7),
        )),
        Field("scopeTrigDelay",                    "u4",   448),
        Array("adc",                               EPIX_AD9249_CONFIG, 452, (10,)),
        Field("testChannel",                       "u4",  1132),
        Field("testDataMask",                      "u4",  1136),
        Field("testPattern",                       "u4",  1140),
        Field("testSamples",                       "u4",  1144),
        Field("testTimeout",                       "u4",  1148),
        Field("testRequest",                       "u4",  1152),
    ),
    size=1156,
)
