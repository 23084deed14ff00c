rule demo { strings: $a = "CrowdStrike" condition: $a }
