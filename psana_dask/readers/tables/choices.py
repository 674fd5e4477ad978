"""What the numbers of choice fields mean: value -> the facility's word for it."""

from __future__ import annotations

from psana_dask.readers.records import Choices

ACQIRIS_TDC_CHANNEL_CHANNEL: Choices = {
    -2: "Veto", -1: "Common", 1: "Input1", 2: "Input2", 3: "Input3", 4: "Input4", 5: "Input5", 6: "Input6",
}
ACQIRIS_TDC_CHANNEL_SLOPE: Choices = {0: "Positive", 1: "Negative"}
ACQIRIS_TDC_CHANNEL_MODE: Choices = {0: "Active", 1: "Inactive"}
ACQIRIS_TDC_AUX_IO_CHANNEL: Choices = {1: "IOAux1", 2: "IOAux2"}
ACQIRIS_TDC_AUX_IO_MODE: Choices = {1: "BankSwitch", 2: "Marker", 32: "OutputLo", 33: "OutputHi"}
ACQIRIS_TDC_AUX_IO_TERMINATION: Choices = {0: "ZHigh", 1: "Z50"}
ACQIRIS_TDC_VETO_IO_CHANNEL: Choices = {13: "ChVeto"}
ACQIRIS_TDC_VETO_IO_MODE: Choices = {1: "Veto", 2: "SwitchVeto", 3: "InvertedVeto", 4: "InvertedSwitchVeto"}
ACQIRIS_TDC_V1_ITEM_SOURCE: Choices = {
    0: "Comm", 1: "Chan1", 2: "Chan2", 3: "Chan3", 4: "Chan4", 5: "Chan5", 6: "Chan6", 7: "AuxIO",
}
FAN_MODE: Choices = {0: "FULL", 1: "LOW", 2: "OFF", 3: "ACQOFF", 4: "NUM"}
ANDOR_CROP_MODE: Choices = {0: "OFF", 1: "ON", 2: "EX", 3: "NUM"}
ARCHON_READOUT_MODE: Choices = {0: "Single", 1: "Continuous", 2: "Triggered"}
ARCHON_READOUT_MODE_2: Choices = {0: "FreeRun", 1: "Triggered"}
SWITCH: Choices = {0: "Off", 1: "On"}
ARCHON_BIAS_CHANNEL_ID: Choices = {
    -4: "NV4", -3: "NV3", -2: "NV2", -1: "NV1", 1: "PV1", 2: "PV2", 3: "PV3", 4: "PV4",
}
CAMERA_FRAME_FEX_FORWARDING: Choices = {0: "NoFrame", 1: "FullFrame", 2: "RegionOfInterest"}
CAMERA_FRAME_FEX_PROCESSING: Choices = {
    0: "NoProcessing", 1: "GssFullFrame", 2: "GssRegionOfInterest", 3: "GssThreshold",
}
CAMERA_CONTROLS_CAMERA_COLOR_MODE: Choices = {0: "Mono", 1: "Bayer", 2: "RGB1"}
DEPTH: Choices = {0: "Eight_bit", 1: "Ten_bit"}
BINNING: Choices = {0: "x1", 1: "x2", 2: "x4"}
PULNIX_TM6740_LOOKUP_TABLE: Choices = {0: "Gamma", 1: "Linear"}
USDUSB_COUNT_MODE: Choices = {0: "WRAP_FULL", 1: "LIMIT", 2: "HALT", 3: "WRAP_PRESET"}
USDUSB_QUAD_MODE: Choices = {0: "CLOCK_DIR", 1: "X1", 2: "X2", 3: "X4"}
ENCODER_COUNT_MODE: Choices = {0: "WRAP_FULL", 1: "LIMIT", 2: "HALT", 3: "WRAP_PRESET", 4: "COUNT_END"}
ENCODER_QUAD_MODE: Choices = {0: "CLOCK_DIR", 1: "X1", 2: "X2", 3: "X4", 4: "QUAD_END"}
PGP_C_REGISTER_ACTION: Choices = {
    0: "RegisterRead", 1: "RegisterWrite", 2: "RegisterWriteA", 3: "RegisterVerify", 4: "Spin", 5: "Usleep",
    6: "Flush",
}
EVR_OUTPUT_MAP_SOURCE: Choices = {0: "Pulse", 1: "DBus", 2: "Prescaler", 3: "Force_High", 4: "Force_Low"}
EVR_OUTPUT_MAP_CONN: Choices = {0: "FrontPanel", 1: "UnivIO"}
EVR_SEQUENCER_SOURCE: Choices = {
    0: "r120Hz", 1: "r60Hz", 2: "r30Hz", 3: "r10Hz", 4: "r5Hz", 5: "r1Hz", 6: "r0_5Hz", 7: "Disable",
}
GSC16AI_VOLTAGE_RANGE: Choices = {0: "10V", 1: "5V", 2: "2_5V"}
GSC16AI_INPUT_MODE: Choices = {0: "Differential", 1: "Zero", 2: "Vref"}
GSC16AI_TRIGGER_MODE: Choices = {0: "ExtPos", 1: "ExtNeg", 2: "IntClk"}
GSC16AI_DATA_FORMAT: Choices = {0: "TwosComplement", 1: "OffsetBinary"}
BOOL: Choices = {0: "False", 1: "True"}
ISTAR_READOUT_RATE: Choices = {0: "Rate280MHz", 1: "Rate100MHz"}
TRIGGER_MODE: Choices = {
    0: "Internal", 1: "ExternalLevelTransition", 2: "ExternalStart", 3: "ExternalExposure", 4: "Software",
    5: "Advanced", 6: "External",
}
GAIN_MODE: Choices = {0: "HighWellCap12Bit", 1: "LowNoise12Bit", 2: "LowNoiseHighWellCap16Bit"}
ISTAR_GATE_MODE: Choices = {0: "CWOn", 1: "CWOff", 2: "FireOnly", 3: "GateOnly", 4: "FireAndGate", 5: "DDG"}
ISTAR_INSERTION_DELAY: Choices = {0: "Normal", 1: "Fast"}
JUNGFRAU_GAIN_MODE: Choices = {
    0: "Normal", 1: "FixedGain1", 2: "FixedGain2", 3: "ForcedGain1", 4: "ForcedGain2", 5: "HighGain0",
}
JUNGFRAU_SPEED_MODE: Choices = {0: "Quarter", 1: "Half"}
L3_T_RESULT: Choices = {0: "Fail", 1: "Pass", 2: "None"}
L3_T_BIAS: Choices = {0: "Unbiased", 1: "Biased"}
OPAL1K_DEPTH: Choices = {0: "Eight_bit", 1: "Ten_bit", 2: "Twelve_bit"}
OPAL1K_BINNING: Choices = {0: "x1", 1: "x2", 2: "x4", 3: "x8"}
MIRRORING: Choices = {0: "None", 1: "HFlip", 2: "VFlip", 3: "HVFlip"}
ORCA_READOUT_MODE: Choices = {0: "x1", 1: "x2", 2: "x4", 3: "Subarray"}
ORCA_COOLING: Choices = {0: "Off", 1: "On", 2: "Max"}
PIXIS_GAIN_MODE: Choices = {1: "Low", 2: "Medium", 3: "High"}
PIXIS_ADC_MODE: Choices = {1: "LowNoise", 2: "HighCapacity"}
PIXIS_TRIGGER_MODE: Choices = {0: "Software", 1: "External", 2: "ExternalWithCleaning"}
RAYONIX_READOUT_MODE: Choices = {0: "Standard", 1: "HighGain", 2: "LowNoise", 3: "EDR"}
RAYONIX_READOUT_MODE_2: Choices = {0: "Unknown", 1: "Standard", 2: "HighGain", 3: "LowNoise", 4: "HDR"}
STREAK_DEVICE_MODE: Choices = {0: "Focus", 1: "Operate"}
STREAK_GATE_MODE: Choices = {0: "Normal", 1: "Gate", 2: "OpenFixed"}
STREAK_SHUTTER_MODE: Choices = {0: "Closed", 1: "Open"}
STREAK_TRIGGER_MODE: Choices = {0: "Single", 1: "Continuous"}
STREAK_CALIB_SCALE: Choices = {0: "Nanoseconds", 1: "Microseconds", 2: "Milliseconds", 3: "Seconds"}
TIMEPIX_READOUT_SPEED: Choices = {0: "Slow", 1: "Fast"}
TIMEPIX_TRIGGER_MODE: Choices = {0: "ExtPos", 1: "ExtNeg", 2: "Soft"}
TIMEPIX_TIMEPIX_MODE: Choices = {0: "Counting", 1: "TOT"}
TIMETOOL_EVENT_LOGIC_LOGIC_OP: Choices = {0: "OR", 1: "AND", 2: "OR_NOT", 3: "AND_NOT"}
TIMETOOL_AXIS: Choices = {0: "X", 1: "Y"}
TIMETOOL_EVENT_TYPE: Choices = {0: "Dark", 1: "Reference", 2: "Signal"}
UXI_OSC_MODE: Choices = {0: "RelaxationOsc", 1: "RingOscWithCaps", 2: "RingOscNoCaps", 3: "ExternalClock"}
UXI_TIMING_MODE: Choices = {0: "BasicTiming", 1: "ArbitraryTiming", 2: "ManualTiming"}
VIMBA_ALVIUM_ROI_MODE: Choices = {0: "Off", 1: "On", 2: "Centered"}
VIMBA_ALVIUM_IMG_CORRECTION_TYPE: Choices = {0: "DefectPixelCorrection", 1: "FixedPatternNoiseCorrection"}
VIMBA_ALVIUM_IMG_CORRECTION_SET: Choices = {0: "Preset", 1: "User"}
VIMBA_ALVIUM_PIXEL_MODE: Choices = {0: "Mono8", 1: "Mono10", 2: "Mono10p", 3: "Mono12", 4: "Mono12p"}
VIMBA_ALVIUM_TRIGGER_MODE: Choices = {0: "FreeRun", 1: "External", 2: "Software"}
ZYLA_SHUTTERING_MODE: Choices = {0: "Rolling", 1: "Global"}
ZYLA_FAN_SPEED: Choices = {0: "Off", 1: "Low", 2: "On"}
ZYLA_READOUT_RATE: Choices = {0: "Rate280MHz", 1: "Rate200MHz", 2: "Rate100MHz", 3: "Rate10MHz"}
ZYLA_COOLING_SETPOINT: Choices = {
    0: "0C", 1: "Neg5C", 2: "Neg10C", 3: "Neg15C", 4: "Neg20C", 5: "Neg25C", 6: "Neg30C", 7: "Neg35C",
    8: "Neg40C",
}
