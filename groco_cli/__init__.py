"""groco: image representations learnt by sorting (Group Ordering Constraints, ICCV 2023), and measured."""

__version__ = "0.1.0"
